"""Writes what torchvision's and timm's networks answer to random weights: per network a .npz of its answers, and a .json of the names and
shapes of the tensors in its file.

Run it where torch, torchvision and timm are installed, when a network is added: python tests/golden/make_golden.py [NAME …]
Only the named ones are made anew; without names, all of them. tests/models/test_golden.py builds the same weights and images from numpy,
and compares.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import random_weights  # noqa: E402  (shared with the tests, which are no package)

CLASSES = 10
# VGG's 7x7 pooling and its layer of 100 million weights, at a 64th of the width
_VGG_HIDDEN = 64


def _timm_vgg16() -> torch.nn.Module:
    model = timm.create_model("vgg16", num_classes=CLASSES)
    model.pre_logits = timm.models.vgg.ConvMlp(512, _VGG_HIDDEN, 7)
    model.head.fc = torch.nn.Linear(_VGG_HIDDEN, CLASSES)
    return model


def _torchvision_vgg16() -> torch.nn.Module:
    model = torchvision.models.vgg16(num_classes=CLASSES)
    widths = {0: (512 * 49, _VGG_HIDDEN), 3: (_VGG_HIDDEN, _VGG_HIDDEN), 6: (_VGG_HIDDEN, CLASSES)}
    for i, (inputs, outputs) in widths.items():
        model.classifier[i] = torch.nn.Linear(inputs, outputs)
    return model


def _timm(name: str, **options):
    return lambda: timm.create_model(name, num_classes=CLASSES, **options)


def _torchvision(name: str, **options):
    return lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **options)


def _timm_vit(name: str, **options):
    return _timm(name, dynamic_img_size=True, **options)


# By the name of published weights: our model, the original, and the (height, width) of the images. ResNet, ResNeXt and DenseNet have the
# same names in both libraries, Inception too but for torchvision's auxiliary head.
CASES = {
    "timm/resnet18.tv_in1k": ("resnet18", _timm("resnet18"), (64, 96)),
    "timm/resnet50.a1_in1k": ("resnet50", _timm("resnet50"), (64, 96)),
    # 72 pixels: maps of odd size are pooled in shortcuts
    "timm/resnet18d.ra2_in1k": ("resnet18d", _timm("resnet18d"), (72, 96)),
    "timm/resnet50d.ra2_in1k": ("resnet50d", _timm("resnet50d"), (72, 96)),
    "timm/regnety_040.ra3_in1k": ("regnet_y_4gf", _timm("regnety_040"), (64, 96)),
    "torchvision/regnet_y_8gf.v1": ("regnet_y_8gf", _torchvision("regnet_y_8gf"), (64, 96)),
    "timm/regnety_160.lion_in12k_ft_in1k": ("regnet_y_16gf", _timm("regnety_160"), (64, 96)),
    "timm/resnext50_32x4d.a1h_in1k": ("resnext50_32x4d", _timm("resnext50_32x4d"), (64, 96)),
    "timm/mobilenetv2_100.ra_in1k": ("mobilenet_v2", _timm("mobilenetv2_100"), (64, 96)),
    "torchvision/mobilenet_v2.v1": ("mobilenet_v2", _torchvision("mobilenet_v2"), (64, 96)),
    "timm/mobilenetv3_large_100.ra_in1k": ("mobilenet_v3_large", _timm("mobilenetv3_large_100"), (64, 96)),
    "torchvision/mobilenet_v3_large.v1": ("mobilenet_v3_large", _torchvision("mobilenet_v3_large"), (64, 96)),
    "timm/mobilenetv4_conv_small.e2400_r224_in1k": ("mobilenet_v4_conv_small", _timm("mobilenetv4_conv_small"), (64, 96)),
    "timm/mobilenetv4_conv_medium.e500_r224_in1k": ("mobilenet_v4_conv_medium", _timm("mobilenetv4_conv_medium"), (64, 96)),
    "torchvision/squeezenet1_0.v1": ("squeezenet1_0", _torchvision("squeezenet1_0"), (64, 96)),
    "torchvision/squeezenet1_1.v1": ("squeezenet1_1", _torchvision("squeezenet1_1"), (64, 96)),
    "timm/vgg16.tv_in1k": ("vgg16", _timm_vgg16, (64, 96)),
    "torchvision/vgg16.v1": ("vgg16", _torchvision_vgg16, (64, 96)),
    "torchvision/inception_v3.v1": ("inception_v3", _torchvision("inception_v3", init_weights=False), (80, 96)),
    "timm/legacy_xception.tf_in1k": ("xception", _timm("legacy_xception"), (80, 96)),
    "timm/densenet121.tv_in1k": ("densenet121", _timm("densenet121"), (64, 96)),
    "timm/convnext_nano.in12k_ft_in1k": ("convnext_nano", _timm("convnext_nano"), (64, 96)),
    "timm/convnext_tiny.fb_in1k": ("convnext_tiny", _timm("convnext_tiny"), (64, 96)),
    "torchvision/convnext_tiny.v1": ("convnext_tiny", _torchvision("convnext_tiny"), (64, 96)),
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k": ("convnextv2_nano", _timm("convnextv2_nano"), (64, 96)),
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k": ("convnextv2_tiny", _timm("convnextv2_tiny"), (64, 96)),
    "timm/efficientnet_b1.ra4_e3600_r240_in1k": ("efficientnet_b1", _timm("efficientnet_b1"), (64, 96)),
    "timm/tf_efficientnet_b4.ns_jft_in1k": ("efficientnet_b4", _timm("tf_efficientnet_b4"), (63, 96)),
    "torchvision/efficientnet_b2.v1": ("efficientnet_b2", _torchvision("efficientnet_b2"), (64, 96)),
    "timm/tf_efficientnetv2_s.in21k_ft_in1k": ("efficientnet_v2_s", _timm("tf_efficientnetv2_s"), (63, 96)),
    "timm/tf_efficientnetv2_m.in21k_ft_in1k": ("efficientnet_v2_m", _timm("tf_efficientnetv2_m"), (64, 96)),
    "torchvision/efficientnet_v2_s.v1": ("efficientnet_v2_s", _torchvision("efficientnet_v2_s"), (64, 96)),
    "timm/efficientnet_b0.ra_in1k": ("efficientnet_b0", _timm("efficientnet_b0"), (64, 96)),
    "timm/tf_efficientnet_b0.in1k": ("efficientnet_b0", _timm("tf_efficientnet_b0"), (64, 96)),
    "torchvision/efficientnet_b0.v1": ("efficientnet_b0", _torchvision("efficientnet_b0"), (64, 96)),
    # Vision Transformers: at the size of their learned positions, with fewer patches, and with more
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": ("vit_small_patch16_224", _timm_vit("vit_small_patch16_224", depth=2), (224, 224)),
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k": ("vit_base_patch16_224", _timm_vit("vit_base_patch16_224", depth=1), (64, 96)),
    "timm/vit_small_patch14_reg4_dinov2.lvd142m": (
        "vit_small_patch14_reg4_dinov2",
        _timm_vit("vit_small_patch14_reg4_dinov2", depth=2),
        (84, 56),
    ),
    "timm/vit_base_patch14_reg4_dinov2.lvd142m": (
        "vit_base_patch14_reg4_dinov2",
        _timm_vit("vit_base_patch14_reg4_dinov2", depth=1, img_size=56),
        (84, 70),
    ),
    "timm/vit_small_patch16_dinov3.lvd1689m": ("vit_small_patch16_dinov3", _timm("vit_small_patch16_dinov3"), (64, 96)),
    "timm/vit_small_plus_patch16_dinov3.lvd1689m": (
        "vit_small_plus_patch16_dinov3",
        _timm("vit_small_plus_patch16_dinov3", depth=2, global_pool="token"),
        (64, 96),
    ),
    "timm/vit_base_patch16_dinov3.lvd1689m": ("vit_base_patch16_dinov3", _timm("vit_base_patch16_dinov3", depth=1), (64, 48)),
    "timm/vit_base_patch16_siglip_224.v2_webli": (
        "vit_base_patch16_siglip_224",
        _timm_vit("vit_base_patch16_siglip_224", depth=1),
        (64, 96),
    ),
}
# What differs from the published network, as options of our builder: fewer of the blocks that repeat, so that the tests are quick.
VARIANTS = {
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": {"depth": 2},
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k": {"depth": 1},
    "timm/vit_small_patch14_reg4_dinov2.lvd142m": {"depth": 2},
    "timm/vit_base_patch14_reg4_dinov2.lvd142m": {"depth": 1, "grid": 4},
    "timm/vit_small_plus_patch16_dinov3.lvd1689m": {"depth": 2, "pool": "token"},
    "timm/vit_base_patch16_dinov3.lvd1689m": {"depth": 1},
    "timm/vit_base_patch16_siglip_224.v2_webli": {"depth": 1},
}
TRAINED = "timm/resnet18.tv_in1k"  # its answer and statistics after one forward pass in training mode are written too


def _write_description(name: str, model: torch.nn.Module, size: tuple[int, int]) -> dict[str, list[int]]:
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(shape, separators=(',', ':'))}" for key, shape in shapes.items())
    batch_norm = sorted({(norm.eps, norm.momentum) for norm in norms})
    variant = f'  "variant": {json.dumps(VARIANTS[name])},\n' if name in VARIANTS else ""
    fields = f'  "size": {list(size)},\n{variant}  "batch_norm": {json.dumps(batch_norm)},\n'
    text = f'{{\n{fields}  "tensors": {{\n{lines}\n  }}\n}}\n'
    path = HERE / f"{name.replace('/', '_')}.json"
    path.write_text(text)
    assert json.loads(text)["tensors"] == shapes
    return shapes


def main() -> None:
    names = sys.argv[1:] or list(CASES)
    for name in names:
        ours, build, size = CASES[name]
        torch.manual_seed(0)
        model = build()
        shapes = _write_description(name, model, size)
        weights = random_weights.torch_weights(shapes, ours)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()}, strict=True)
        image = torch.from_numpy(random_weights.images(2, *size).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            logits = model.eval()(image).numpy()
            print(f"{name:32} logits {logits.min():10.4g} to {logits.max():10.4g}, spread {logits.std(1)}", flush=True)
            print(f"{'':32} images differ by {np.abs(logits[0] - logits[1]).mean() / logits.std():.3f} of it", flush=True)
            answers = {"logits": logits}
            if name == TRAINED:
                answers["training"] = model.train()(image).numpy()
                for key, value in model.state_dict().items():
                    if key.endswith(("running_mean", "running_var")):
                        answers[f"training {key}"] = value.numpy()
        np.savez_compressed(HERE / f"{name.replace('/', '_')}.npz", **answers)
        random_weights.assert_telling(logits)


if __name__ == "__main__":
    main()
