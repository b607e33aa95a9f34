"""ConvNeXt: Liu et al., 2022 (https://arxiv.org/abs/2201.03545), section 2 and appendix A; nano is timm's.

Parameter paths: `stem/{conv,norm}`, `stage1/0/{depthwise,norm,expand,project,layer_scale}`, and before the later stages
`downsample2/{norm,conv}`; the head is `head/{norm,logits}`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.heads import NormHead
from imgclf.models.initializers import normal
from imgclf.models.pixelwise import LayerNorm, LayerScale, gelu
from imgclf.models.resnet import Stage
from imgclf.models.weights.conversion import Rule, Transform, Weights, conv, keras_batch_norm, linear, same

_UNPADDED = ((0, 0), (0, 0))


def _init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """The authors' initialisation: normal, standard deviation 0.02; they truncate it at 100 standard deviations, which changes nothing."""
    del out_sharding
    return (normal(key, shape) * np.float32(0.02)).astype(dtype)


ResponseNormBuilder = Callable[[int], nnx.Module]


class Block(nnx.Module):
    """Depthwise 7x7, LayerNorm, expand to four times the channels, GELU, project, layer scale; and the shortcut.

    timm's `conv_mlp`, which computes the dense layers as 1x1 convolutions, is the same function.

    Args:
      layer_scale: the first value of its factors; None = no layer scale.
      response_norm: builds ConvNeXt-V2's `response_norm` after GELU, called with the channels there; None = no such layer.
    """

    def __init__(self, features: int, *, layer_scale: float | None, response_norm: ResponseNormBuilder | None, dtype: Any, rngs: nnx.Rngs):
        options = {"kernel_init": _init, "dtype": dtype, "rngs": rngs}
        self.depthwise = layers.DepthwiseConv(features, 7, use_bias=True, **options)
        self.norm = LayerNorm(features, dtype=dtype, rngs=rngs)
        self.expand = layers.Linear(features, 4 * features, **options)
        self.project = layers.Linear(4 * features, features, **options)
        self.scales, self.normalizes_response = layer_scale is not None, response_norm is not None
        if layer_scale is not None:
            self.layer_scale = LayerScale(features, layer_scale)
        if response_norm is not None:
            self.response_norm = response_norm(4 * features)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # a block does the same in training
        y = gelu(self.expand(self.norm(self.depthwise(x))))
        y = self.project(self.response_norm(y) if self.normalizes_response else y)
        return layers.residual_sum(x, self.layer_scale(y) if self.scales else y)


class Stem(nnx.Module):
    """Patches of 4x4 pixels: `conv`, `norm`."""

    def __init__(self, features: int, *, dtype: Any, rngs: nnx.Rngs):
        self.conv = layers.Conv(3, features, 4, stride=4, padding=_UNPADDED, use_bias=True, kernel_init=_init, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Downsample(nnx.Module):
    """Patches of 2x2 between stages: `norm`, `conv`."""

    def __init__(self, in_features: int, features: int, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = LayerNorm(in_features, dtype=dtype, rngs=rngs)
        options = {"padding": _UNPADDED, "use_bias": True, "kernel_init": _init, "dtype": dtype, "rngs": rngs}
        self.conv = layers.Conv(in_features, features, 2, stride=2, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(self.norm(x))


class ConvNeXt(Backbone):
    """Stem and four stages of blocks, with a downsampling before each but the first. No stochastic depth in training."""

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        layer_scale: float | None = 1e-6,
        response_norm: ResponseNormBuilder | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        block = functools.partial(Block, layer_scale=layer_scale, response_norm=response_norm, dtype=dtype, rngs=rngs)
        self.stem = Stem(widths[0], dtype=dtype, rngs=rngs)
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            if i > 1:
                setattr(self, f"downsample{i}", Downsample(widths[i - 2], width, dtype=dtype, rngs=rngs))
            setattr(self, f"stage{i}", Stage([block(width) for _ in range(depth)]))
        self.stages = len(depths)
        self.features = widths[-1]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded down."""
        scale = 2 ** (self.stages + 1)
        return height // scale, width // scale

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = self.stem(image)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"downsample{i}")(x) if i > 1 else x
            x = getattr(self, f"stage{i}")(x, train=train)
        return x


HEAD = functools.partial(NormHead, kernel_init=_init)
NEW_HEAD = "norm"


def convnext_nano(**options: Any) -> ConvNeXt:
    return ConvNeXt((2, 2, 8, 2), (80, 160, 320, 640), **options)


def convnext_tiny(**options: Any) -> ConvNeXt:
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), **options)


def convnext_small(**options: Any) -> ConvNeXt:
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), **options)


def convnext_base(**options: Any) -> ConvNeXt:
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), **options)


def convnext_micro(**options: Any) -> ConvNeXt:
    """Two stages of one block, few channels: for tests."""
    return ConvNeXt((1, 1), (16, 32), **options)


MODELS = {
    "convnext_nano": Model(convnext_nano, 15_593_560),
    "convnext_tiny": Model(convnext_tiny, 28_589_128),
    "convnext_small": Model(convnext_small, 50_223_688),
    "convnext_base": Model(convnext_base, 88_591_464),
    "convnext_micro": Model(convnext_micro),
}

_TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/results"
_RESULTS = f"{_TIMM}/results-imagenet.csv"
# by the side of the images; of timm's results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv
_GMACS = {
    "convnext_nano": {224: 2.46, 384: 7.22},
    "convnext_tiny": {224: 4.47, 384: 13.14},
    "convnext_small": {224: 8.71, 384: 25.58},
    "convnext_base": {224: 15.38, 256: 20.09, 384: 45.21},
}


def _timm(name: str, top1: float | None, crop: float, side: int = 224, **other: Any) -> Weights:
    model = name.split(".")[0]
    fields: dict[str, Any] = {"licence": "apache-2.0", "source": _RESULTS, "soft_labels": True, "gmacs": _GMACS[model][side]}
    return Weights(
        f"timm/{name}",
        model,
        "timm",
        (side, side),
        crop_fraction=crop,
        interpolation="bicubic",
        repo=f"timm/{name}",
        top1=top1,
        **fields | other,
    )


_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _clip(name: str, top1: float | None, side: int = 256, **other: Any) -> Weights:
    """Trained on pairs of image and text (https://arxiv.org/abs/2212.07143), then fine-tuned on labels."""
    return _timm(f"convnext_base.clip_laion2b_augreg_{name}", top1, 1.0, side, mean=_CLIP_MEAN, std=_CLIP_STD, **other)


# Its licence allows commercial use, but not every use, and what is passed on must come with it.
_DINOV3: dict[str, Any] = {
    "licence": "dinov3-license",
    "source": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
    "num_classes": 0,
    "soft_labels": False,
}

_TORCHVISION_FILES = (
    ("convnext_tiny", "convnext_tiny-983f1562", 82.52, 236),
    ("convnext_small", "convnext_small-0c510722", 83.616, 230),
    ("convnext_base", "convnext_base-6075fbad", 84.062, 232),
)
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/convnext/"

# Top-1 at the stated size; all but DINOv3's were trained with mixed and smoothed labels. timm squashes what it evaluates at 384 pixels
# instead of cropping it.
WEIGHTS: tuple[Weights, ...] = (
    _timm("convnext_nano.in12k_ft_in1k", 82.306, 0.95),
    _timm("convnext_nano.d1h_in1k", 80.762, 0.95),
    _timm("convnext_nano.r384_in12k_ft_in1k", 83.334, 1.0, 384),
    _timm("convnext_tiny.fb_in1k", 82.066, 0.875),
    _timm("convnext_tiny.in12k_ft_in1k", 84.192, 0.95),
    _timm("convnext_tiny.in12k_ft_in1k_384", 85.154, 1.0, 384),
    _timm("convnext_tiny.fb_in22k_ft_in1k", 82.900, 0.875),
    _timm("convnext_tiny.dinov3_lvd1689m", None, 1.0, **_DINOV3),
    _timm("convnext_small.fb_in1k", 83.144, 0.875),
    _timm("convnext_small.in12k_ft_in1k", 85.164, 0.95),
    _timm("convnext_small.in12k_ft_in1k_384", 86.186, 1.0, 384),
    _timm("convnext_small.dinov3_lvd1689m", None, 1.0, **_DINOV3),
    _timm("convnext_base.fb_in1k", 83.838, 0.875),
    _timm("convnext_base.fb_in22k_ft_in1k", 85.814, 0.875),
    _clip("ft_in12k_in1k", 86.378),
    _clip("ft_in12k_in1k_384", 87.144, 384),
    _clip("ft_in1k", 86.184),
    _clip("ft_in12k", None, num_classes=11821),
    _timm("convnext_base.dinov3_lvd1689m", None, 1.0, **_DINOV3),
    *(
        Weights(
            f"torchvision/{model}.v1",
            model,
            "torchvision",
            crop_fraction=224 / resized,
            file=f"{file}.safetensors",
            top1=top1,
            soft_labels=True,
            gmacs=_GMACS[model][224],
            licence="bsd-3-clause",
            source=f"https://download.pytorch.org/models/{file}.pth",
        )
        for model, file, top1, resized in _TORCHVISION_FILES
    ),
    # Keras normalises within the model, by a layer that amounts to mean and std.
    *(
        Weights(
            f"keras/{model}",
            model,
            "keras",
            file=f"{model}.h5",
            soft_labels=True,
            gmacs=_GMACS[model][224],
            source=f"{_KERAS_URL}{model}.h5",
        )
        for model in ("convnext_tiny", "convnext_small", "convnext_base")
    ),
)


def _layer(name: str, path: str, kernel: Transform = linear) -> tuple[Rule, ...]:
    """Rules of a torch convolution or dense layer with bias; also LayerNorm, whose `weight` is our `scale`."""
    leaf, transform = ("scale", same) if path.endswith("norm") else ("kernel", kernel)
    return ((rf"{name}\.weight", f"{path}/{leaf}", transform), (rf"{name}\.bias", f"{path}/bias", same))


def _timm_rules() -> tuple[Rule, ...]:
    rules = [*_layer(r"stem\.0", "backbone/stem/conv", conv), *_layer(r"stem\.1", "backbone/stem/norm")]
    for i in range(4):
        layer, path, down = rf"stages\.{i}\.blocks\.(\d+)\.", rf"backbone/stage{i + 1}/\1", rf"stages\.{i}\.downsample\."
        rules += [
            *_layer(layer + "conv_dw", f"{path}/depthwise", conv),
            *_layer(layer + "norm", f"{path}/norm"),
            *_layer(layer + r"mlp\.fc1", f"{path}/expand"),
            *_layer(layer + r"mlp\.fc2", f"{path}/project"),
            (layer + "gamma", f"{path}/layer_scale/scale", same),
        ]
        if i > 0:
            rules += _layer(down + "0", f"backbone/downsample{i + 1}/norm")
            rules += _layer(down + "1", f"backbone/downsample{i + 1}/conv", conv)
    return (*rules, *_layer(r"head\.norm", "head/norm"), *_layer(r"head\.fc", "head/logits"))


def _torchvision_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = [*_layer(r"features\.0\.0", "backbone/stem/conv", conv), *_layer(r"features\.0\.1", "backbone/stem/norm")]
    for i in range(4):
        layer, path, down = rf"features\.{2 * i + 1}\.(\d+)\.", rf"backbone/stage{i + 1}/\1", rf"features\.{2 * i}\."
        rules += [
            *_layer(layer + r"block\.0", f"{path}/depthwise", conv),
            *_layer(layer + r"block\.2", f"{path}/norm"),
            *_layer(layer + r"block\.3", f"{path}/expand"),
            *_layer(layer + r"block\.5", f"{path}/project"),
            (layer + "layer_scale", f"{path}/layer_scale/scale", np.ravel),
        ]
        if i > 0:
            rules += _layer(down + "0", f"backbone/downsample{i + 1}/norm")
            rules += _layer(down + "1", f"backbone/downsample{i + 1}/conv", conv)
    return (*rules, *_layer(r"classifier\.0", "head/norm"), *_layer(r"classifier\.2", "head/logits"))


def _keras_layer(name: str, path: str) -> tuple[Rule, ...]:
    if path.endswith("norm"):
        return keras_batch_norm(name, path)
    return ((f"{name}/kernel", f"{path}/kernel", same), (f"{name}/bias", f"{path}/bias", same))


def _keras_rules() -> tuple[Rule, ...]:
    # layers are named after the model, which the user may name
    rules: list[Rule] = [
        (r".+_prestem_normalization/(mean|variance|count)", None, same),  # the weights' mean and std do the same
        *_keras_layer(".+_stem_conv", "backbone/stem/conv"),
        *_keras_layer(".+_stem_layernorm", "backbone/stem/norm"),
    ]
    for i in range(4):
        layer, path = rf".+_stage_{i}_block_(\d+)_", rf"backbone/stage{i + 1}/\1"
        rules += [
            *_keras_layer(layer + "depthwise_conv", f"{path}/depthwise"),
            *_keras_layer(layer + "layernorm", f"{path}/norm"),
            *_keras_layer(layer + "pointwise_conv_1", f"{path}/expand"),
            *_keras_layer(layer + "pointwise_conv_2", f"{path}/project"),
            (layer + "layer_scale/.+", f"{path}/layer_scale/scale", same),  # a variable that Keras leaves without a name
        ]
        if i > 0:
            rules += _keras_layer(f".+_downsampling_layernorm_{i - 1}", f"backbone/downsample{i + 1}/norm")
            rules += _keras_layer(f".+_downsampling_conv_{i - 1}", f"backbone/downsample{i + 1}/conv")
    return (
        *rules,
        *_keras_layer(".+_head_layernorm", "head/norm"),
        *_keras_layer(".+_head_dense", "head/logits"),
        *keras_batch_norm(r"layer_normalization(?:_\d+)?", "head/norm"),  # the last layer of Keras's network without the top
    )


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "torchvision": _torchvision_rules(), "keras": _keras_rules()}
