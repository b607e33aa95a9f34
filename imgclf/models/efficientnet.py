"""EfficientNet-B0 to B4: Tan and Le, 2019 (https://arxiv.org/abs/1905.11946), table 1, with their compound scaling of width and depth.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` and `blocks/0/se/{reduce,expand}` to `blocks/15` (of
B0), `last/{conv,bn}`; the blocks of the first stage have no `expand`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from imgclf.models.backbone import Model
from imgclf.models.blocks import InvertedResidualNet, InvertedResidualStage
from imgclf.models.initializers import HE_NORMAL
from imgclf.models.mobilenet_v2 import round_channels
from imgclf.models.weights.conversion import (
    HALF,
    Rule,
    Transform,
    Weights,
    batch_norm,
    conv,
    keras_batch_norm,
    keras_depthwise,
    linear,
    pointwise,
    same,
    undone_by,
)

_B0 = (
    InvertedResidualStage(1, 16, 1, 1),
    InvertedResidualStage(6, 24, 2, 2),
    InvertedResidualStage(6, 40, 2, 2, 5),
    InvertedResidualStage(6, 80, 3, 2),
    InvertedResidualStage(6, 112, 3, 1, 5),
    InvertedResidualStage(6, 192, 4, 2, 5),
    InvertedResidualStage(6, 320, 1, 1),
)
# How many times wider and deeper than B0, by the authors' code; the paper's formula gives these after rounding.
_SCALES = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8)}
# The fan of a depthwise kernel is its own, kernel².
SHARED: dict[str, Any] = {"activation": jax.nn.silu, "squeeze_excite": True, "depthwise_init": HE_NORMAL}


def stages(size: str) -> tuple[InvertedResidualStage, ...]:
    """What is between the first and the last convolution of a size, b0 to b4."""
    width, depth = _SCALES[size]
    return tuple(
        dataclasses.replace(stage, features=round_channels(stage.features * width), depth=math.ceil(stage.depth * depth)) for stage in _B0
    )


def efficientnet(size: str, **options: Any) -> InvertedResidualNet:
    """EfficientNet of a size, b0 to b4, with SiLU throughout; without stochastic depth in training."""
    width, _ = _SCALES[size]
    return InvertedResidualNet(round_channels(32 * width), stages(size), round_channels(1280 * width), **SHARED, **options)


def efficientnet_tiny(**options: Any) -> InvertedResidualNet:
    """Four blocks of few channels: for tests."""
    stages = InvertedResidualStage(1, 8, 1, 1), InvertedResidualStage(6, 16, 2, 2, 5), InvertedResidualStage(6, 24, 1, 2)
    return InvertedResidualNet(8, stages, 64, **SHARED, **options)


MODELS = {
    "efficientnet_b0": Model(functools.partial(efficientnet, "b0"), 5_288_548),
    "efficientnet_b1": Model(functools.partial(efficientnet, "b1"), 7_794_184),
    "efficientnet_b2": Model(functools.partial(efficientnet, "b2"), 9_109_994),
    "efficientnet_b3": Model(functools.partial(efficientnet, "b3"), 12_233_232),
    "efficientnet_b4": Model(functools.partial(efficientnet, "b4"), 19_341_616),
    "efficientnet_tiny": Model(efficientnet_tiny),
}

TF = {"padding": "same", "epsilon": 1e-3}  # of TensorFlow's networks; the momentum is timm's
KERAS = {**TF, "momentum": 0.99, "unbiased": False}
RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
# By size and the side of the images; of timm's results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv, of the network whatever its library.
_GMACS = {
    "b0": {224: 0.40},
    "b1": {224: 0.59, 240: 0.71},
    "b2": {256: 0.89, 260: 1.02, 288: 1.12},
    "b3": {288: 1.63, 300: 1.87},
    "b4": {320: 3.13, 380: 4.49},
}
_TF_SIDES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380}  # of the authors' networks


def _of(library: str, name: str, size: str, side: int, crop: float, top1: float | None, **fields: Any) -> Weights:
    """Weights whose published evaluation crops `crop` of images resized by bicubic interpolation to `side` squared."""
    options = {"interpolation": "bicubic", "soft_labels": True, "gmacs": _GMACS[size][side], **fields}
    return Weights(f"{library}/{name}", f"efficientnet_{size}", f"{library}_{size}", (side, side), crop_fraction=crop, top1=top1, **options)


def _timm(recipe: str, size: str, side: int, crop: float, top1: float, **fields: Any) -> Weights:
    name = f"efficientnet_{size}.{recipe}"
    return _of("timm", name, size, side, crop, top1, repo=f"timm/{name}", licence="apache-2.0", source=RESULTS, **fields)


def _tf(size: str, in1k: float, adversarial: float, noisy_student: float) -> tuple[Weights, ...]:
    """The authors' weights, cropped as they do, by top-1: plain, AdvProp, and of a noisy student with 300 million images more."""
    side = _TF_SIDES[size]
    centred: dict[str, Any] = {"mean": HALF, "std": HALF}

    def weights(recipe: str, top1: float, **other: Any) -> Weights:
        name, crop = f"tf_efficientnet_{size}.{recipe}", round(side / (side + 32), 3)
        fields: dict[str, Any] = {"repo": f"timm/{name}", "licence": "apache-2.0", "source": RESULTS, **other}
        return _of("timm", name, size, side, crop, top1, variant=TF, **fields)

    return weights("in1k", in1k), weights("ns_jft_in1k", noisy_student), weights("ap_in1k", adversarial, **centred)


def _torchvision(file: str, size: str, side: int, resized: int, top1: float, version: int = 1, **fields: Any) -> Weights:
    source = f"https://download.pytorch.org/models/{file}.pth"
    common: dict[str, Any] = {"file": f"{file}.safetensors", "licence": "bsd-3-clause", "source": source}
    return _of("torchvision", f"efficientnet_{size}.v{version}", size, side, side / resized, top1, **common, **fields)


def _keras(size: str, top1: float) -> Weights:
    """Keras's file of the authors' weights; it rescales and normalises within the model, by layers that amount to mean and std."""
    side, file = _TF_SIDES[size], f"efficientnet{size}.h5"
    source = f"https://storage.googleapis.com/keras-applications/{file}"
    return _of("keras", f"efficientnet{size}", size, side, round(side / (side + 32), 3), top1, variant=KERAS, file=file, source=source)


# Top-1 at the stated size. All were trained with smoothed labels.
WEIGHTS: tuple[Weights, ...] = (
    _timm("ra_in1k", "b0", 224, 0.875, 77.698),
    _timm("ra4_e3600_r224_in1k", "b0", 224, 0.9, 78.568, mean=HALF, std=HALF),
    *_tf("b0", 76.542, 77.100, 78.680),
    _torchvision("efficientnet_b0_rwightman-7f5810bc", "b0", 224, 256, 77.692),
    _keras("b0", 77.1),
    _timm("ra4_e3600_r240_in1k", "b1", 240, 0.9, 80.404, mean=HALF, std=HALF),
    _timm("ft_in1k", "b1", 224, 0.875, 77.592),
    *_tf("b1", 78.546, 79.288, 81.388),
    _torchvision("efficientnet_b1_rwightman-bac287d4", "b1", 240, 256, 78.642),
    _torchvision("efficientnet_b1-c27df63c", "b1", 240, 255, 79.838, 2, interpolation="bilinear"),
    _keras("b1", 79.1),
    _timm("ra_in1k", "b2", 256, 0.875, 79.324),
    *_tf("b2", 79.612, 80.300, 82.412),
    _torchvision("efficientnet_b2_rwightman-c35c1473", "b2", 288, 288, 80.608),
    _keras("b2", 80.1),
    _timm("ra2_in1k", "b3", 288, 0.875, 81.472),
    *_tf("b3", 80.878, 81.842, 84.054),
    _torchvision("efficientnet_b3_rwightman-b3899882", "b3", 300, 320, 82.008),
    _keras("b3", 81.6),
    _timm("ra2_in1k", "b4", 320, 0.875, 82.658),
    *_tf("b4", 82.598, 83.246, 85.156),
    _torchvision("efficientnet_b4_rwightman-23ab8bcd", "b4", 380, 384, 83.384),
    _keras("b4", 82.9),
)


def _parts(stage: InvertedResidualStage) -> tuple[str, ...]:
    """The layers of each block of a stage, in order."""
    expand = () if stage.expansion == 1 else ("expand",)
    return (*expand, "project") if stage.fused else (*expand, "depthwise", "se", "project")


# by the parts of a block, timm's names of its convolutions
_TIMM_CONVS = {
    ("project",): ("conv",),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("depthwise", "se", "project"): ("conv_dw", "se", "conv_pw"),
    ("expand", "depthwise", "se", "project"): ("conv_pw", "conv_dw", "se", "conv_pwl"),
}


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _torch_dense(layer: str, path: str, kernel: Transform = pointwise) -> tuple[Rule, ...]:
    return ((rf"{layer}\.weight", f"{path}/kernel", kernel), (rf"{layer}\.bias", f"{path}/bias", same))


def _numbered(rules: Sequence[Rule], first: int) -> tuple[Rule, ...]:
    """Rules of a stage whose first block is our block `first`: {} in their paths is our block, group 1 of their patterns the stage's."""

    def place(path: str) -> Callable[[re.Match[str]], str]:
        return lambda found: path.format(first + (int(found[1]) if found[1].isdigit() else ord(found[1]) - ord("a")))

    return tuple((pattern, place(path) if isinstance(path, str) else path, transform) for pattern, path, transform in rules)


def _blocks(depth: int) -> str:
    """The pattern of a block's number in a stage."""
    return f"({'|'.join(map(str, range(depth)))})"


def _timm_stage(number: int, depth: int, parts: tuple[str, ...]) -> list[Rule]:
    layer, path, norms, rules = rf"blocks\.{number}\.{_blocks(depth)}\.", "backbone/blocks/{}/", 0, list[Rule]()
    for part, name in zip(parts, _TIMM_CONVS[parts], strict=True):
        if part == "se":
            for each in ("reduce", "expand"):
                rules += _torch_dense(rf"{layer}se\.conv_{each}", f"{path}se/{each}")
        else:
            norms += 1
            rules += _torch(layer + name, f"{layer}bn{norms}", path + part)
    return rules


def _torchvision_stage(number: int, depth: int, parts: tuple[str, ...]) -> list[Rule]:
    path, rules = "backbone/blocks/{}/", list[Rule]()
    for place, part in enumerate(parts):
        layer = rf"features\.{number + 1}\.{_blocks(depth)}\.block\.{place}\."
        if part == "se":
            rules += (*_torch_dense(f"{layer}fc1", f"{path}se/reduce"), *_torch_dense(f"{layer}fc2", f"{path}se/expand"))
        else:
            rules += _torch(f"{layer}0", f"{layer}1", path + part)
    return rules


@undone_by(lambda kernel: kernel[None, None])
def _keras_dense(kernel: np.ndarray) -> np.ndarray:
    """Keras 1x1 convolution [1,1,in,out] to a dense layer [in,out]."""
    return kernel.reshape(kernel.shape[2:])


def _keras_stage(number: int, depth: int, parts: tuple[str, ...]) -> list[Rule]:
    layer, path, rules = f"block{number + 1}([a-{chr(ord('a') + depth - 1)}])_", "backbone/blocks/{}/", list[Rule]()
    for part in parts:
        if part == "se":
            for each in ("reduce", "expand"):
                rules.append((f"{layer}se_{each}/kernel", f"{path}se/{each}/kernel", _keras_dense))
                rules.append((f"{layer}se_{each}/bias", f"{path}se/{each}/bias", same))
        elif part == "depthwise":
            rules.append((f"{layer}dwconv2?/(?:depthwise_kernel|kernel)", f"{path}depthwise/conv/kernel", keras_depthwise))
            rules += keras_batch_norm(f"{layer}bn", f"{path}depthwise/bn")
        else:
            rules.append((f"{layer}{part}_conv/kernel", f"{path}{part}/conv/kernel", same))
            rules += keras_batch_norm(f"{layer}{part}_bn", f"{path}{part}/bn")
    return rules


def conversion(size: str, stages: Sequence[InvertedResidualStage]) -> dict[str, tuple[Rule, ...]]:
    """The tables of a network of these stages, by layout: "timm_b0", "torchvision_b0" and "keras_b0" for the size "b0".

    Files count the blocks anew in each stage, so that each size has its own.
    """
    last = rf"features\.{len(stages) + 1}\."
    timm = [*_torch("conv_stem", "bn1", "backbone/stem"), *_torch("conv_head", "bn2", "backbone/last")]
    torchvision = [*_torch(r"features\.0\.0", r"features\.0\.1", "backbone/stem"), *_torch(f"{last}0", f"{last}1", "backbone/last")]
    keras: list[Rule] = [
        (r"normalization(_\d+)?/(mean|variance|count)", None, same),  # the weights' mean and std do the same
        ("stem_conv/kernel", "backbone/stem/conv/kernel", same),
        *keras_batch_norm("stem_bn", "backbone/stem/bn"),
        ("top_conv/kernel", "backbone/last/conv/kernel", same),
        *keras_batch_norm("top_bn", "backbone/last/bn"),
        ("predictions/kernel", "head/logits/kernel", same),
        ("predictions/bias", "head/logits/bias", same),
    ]
    first = 0
    for number, stage in enumerate(stages):
        parts = _parts(stage)
        timm += _numbered(_timm_stage(number, stage.depth, parts), first)
        torchvision += _numbered(_torchvision_stage(number, stage.depth, parts), first)
        keras += _numbered(_keras_stage(number, stage.depth, parts), first)
        first += stage.depth
    return {
        f"timm_{size}": (*timm, *_torch_dense("classifier", "head/logits", linear)),
        f"torchvision_{size}": (*torchvision, *_torch_dense(r"classifier\.1", "head/logits", linear)),
        f"keras_{size}": tuple(keras),
    }


CONVERSION = {layout: rules for size in _SCALES for layout, rules in conversion(size, stages(size)).items()}
