"""EfficientNetV2-S and -M: Tan and Le, 2021 (https://arxiv.org/abs/2104.00298), table 4: fused blocks in the early stages.

Parameter paths, and the names in published files, are those of EfficientNet; a fused block has `{expand,project}/{conv,bn}`, or in the
first stage, without an expansion, `project/{conv,bn}` alone.
"""

import functools
from typing import Any

from imgclf.models.backbone import Model
from imgclf.models.blocks import InvertedResidualNet, InvertedResidualStage
from imgclf.models.efficientnet import KERAS, RESULTS, SHARED, TF, conversion
from imgclf.models.weights.conversion import HALF, Weights

_fused = functools.partial(InvertedResidualStage, fused=True)
STAGES = {
    "s": (
        _fused(1, 24, 2, 1),
        _fused(4, 48, 4, 2),
        _fused(4, 64, 4, 2),
        InvertedResidualStage(4, 128, 6, 2),
        InvertedResidualStage(6, 160, 9, 1),
        InvertedResidualStage(6, 256, 15, 2),
    ),
    "m": (
        _fused(1, 24, 3, 1),
        _fused(4, 48, 5, 2),
        _fused(4, 80, 5, 2),
        InvertedResidualStage(4, 160, 7, 2),
        InvertedResidualStage(6, 176, 14, 1),
        InvertedResidualStage(6, 304, 18, 2),
        InvertedResidualStage(6, 512, 5, 1),
    ),
}


def efficientnet_v2(size: str, **options: Any) -> InvertedResidualNet:
    """EfficientNetV2 of a size, s or m; without stochastic depth in training."""
    return InvertedResidualNet(24, STAGES[size], 1280, **SHARED, **options)


def efficientnet_v2_tiny(**options: Any) -> InvertedResidualNet:
    """Four blocks of few channels, three of them fused: for tests."""
    stages = _fused(1, 8, 1, 1), _fused(4, 16, 2, 2), InvertedResidualStage(4, 24, 1, 2)
    return InvertedResidualNet(8, stages, 64, **SHARED, **options)


MODELS = {
    "efficientnet_v2_s": Model(functools.partial(efficientnet_v2, "s"), 21_458_488),
    "efficientnet_v2_m": Model(functools.partial(efficientnet_v2, "m"), 54_139_356),
    "efficientnet_v2_tiny": Model(efficientnet_v2_tiny),
}

# By size and the side of the images; of timm's results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv, of the network whatever its library.
_GMACS = {"s": {300: 5.35, 384: 8.44}, "m": {384: 15.85, 480: 24.76}}


def _of(library: str, name: str, size: str, side: int, top1: float | None, **fields: Any) -> Weights:
    """Weights of a network that sees the whole of square images, without a margin that is cropped."""
    options = {"interpolation": "bicubic", "soft_labels": True, "gmacs": _GMACS[size][side], **fields}
    return Weights(
        f"{library}/{name}", f"efficientnet_v2_{size}", f"{library}_{size}", (side, side), crop_fraction=1.0, top1=top1, **options
    )


def _timm(recipe: str, size: str, side: int, top1: float | None, **fields: Any) -> Weights:
    """The authors' weights, at the size of their last epochs; timm squashes what M sees instead of cropping it."""
    name = f"tf_efficientnetv2_{size}.{recipe}"
    common: dict[str, Any] = {"variant": TF, "mean": HALF, "std": HALF, "licence": "apache-2.0", "source": RESULTS}
    return _of("timm", name, size, side, top1, repo=f"timm/{name}", **common, **fields)


def _torchvision(size: str, side: int, file: str, top1: float) -> Weights:
    source = f"https://download.pytorch.org/models/{file}.pth"
    fields: dict[str, Any] = {"variant": {"epsilon": 1e-3}, "file": f"{file}.safetensors", "licence": "bsd-3-clause", "source": source}
    return _of("torchvision", f"efficientnet_v2_{size}.v1", size, side, top1, interpolation="bilinear", **fields)


def _keras(size: str, side: int, top1: float) -> Weights:
    """Keras's file of the authors' weights trained on ImageNet alone; its network makes x / 128 − 1 of pixels of 0 to 255."""
    file, centre = f"efficientnetv2-{size}.h5", (128 / 255,) * 3
    source = f"https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/{file}"
    fields: dict[str, Any] = {"variant": {**KERAS, "momentum": 0.9}, "mean": centre, "std": centre, "file": file, "source": source}
    return _of("keras", f"efficientnetv2{size}", size, side, top1, **fields)


# Top-1 at the stated size. All were trained with smoothed labels.
WEIGHTS: tuple[Weights, ...] = (
    _timm("in21k_ft_in1k", "s", 300, 83.348),
    _timm("in1k", "s", 300, 83.162),
    _timm("in21k", "s", 300, None, num_classes=21843),
    _torchvision("s", 384, "efficientnet_v2_s-dd5fe13b", 84.228),
    _keras("s", 384, 83.9),
    _timm("in21k_ft_in1k", "m", 384, 84.768),
    _timm("in1k", "m", 384, 84.554),
    _timm("in21k", "m", 384, None, num_classes=21843),
    _torchvision("m", 480, "efficientnet_v2_m-dc08266a", 85.112),
    _keras("m", 480, 85.3),
)
CONVERSION = {layout: rules for size, stages in STAGES.items() for layout, rules in conversion(size, stages).items()}
