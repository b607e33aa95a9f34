"""ResNeXt: Xie et al., 2017 (https://arxiv.org/abs/1611.05431), table 1: ResNets whose 3x3 convolutions are wider and have groups.

Parameter paths, and the names in published files, are those of ResNet: `stage1/0/{conv1,bn1,conv2,bn2,conv3,bn3}`.
"""

from typing import Any

from imgclf.models.backbone import Model
from imgclf.models.blocks import ConvShape, bottleneck
from imgclf.models.resnet import CONVERSION as _RESNET_CONVERSION
from imgclf.models.resnet import ResNet
from imgclf.models.weights.conversion import Weights


def _resnext(*depths: int, groups: int, group_width: int, width: int = 64, **options: Any) -> ResNet:
    """A network of bottlenecks with `groups` of `group_width` channels in the first stage, which the later ones double."""

    def convs(stage: int, stride: int) -> tuple[ConvShape, ...]:
        return bottleneck(groups * group_width * 2**stage, 4 * width * 2**stage, strides=(1, stride), groups=groups)

    return ResNet(depths, convs, width=width, **options)


def resnext50_32x4d(**options: Any) -> ResNet:
    return _resnext(3, 4, 6, 3, groups=32, group_width=4, **options)


def resnext_tiny(**options: Any) -> ResNet:
    """One bottleneck a stage, four groups, an eighth of the width: for tests."""
    return _resnext(1, 1, 1, 1, groups=4, group_width=4, width=8, **options)


MODELS = {
    "resnext50_32x4d": Model(resnext50_32x4d, 25_028_904),
    "resnext_tiny": Model(resnext_tiny),
}

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(recipe: str, side: int, top1: float, licence: str, **preprocessing: Any) -> Weights:
    name, gmacs = f"timm/resnext50_32x4d.{recipe}", {224: 4.26, 288: 7.04}[side]
    return Weights(
        name,
        "resnext50_32x4d",
        "timm",
        (side, side),
        **preprocessing,
        repo=name,
        top1=top1,
        gmacs=gmacs,
        licence=licence,
        source=_RESULTS,
    )


def _torchvision(version: int, file: str, top1: float, **options: Any) -> Weights:
    return Weights(
        f"torchvision/resnext50_32x4d.v{version}",
        "resnext50_32x4d",
        "torchvision",
        **options,
        file=f"{file}.safetensors",
        top1=top1,
        gmacs=4.23,
        licence="bsd-3-clause",
        source=f"https://download.pytorch.org/models/{file}.pth",
    )


_UNCROPPED: dict[str, Any] = {"crop_fraction": 1.0, "interpolation": "bicubic", "soft_labels": True}
WEIGHTS: tuple[Weights, ...] = (
    _timm("tv_in1k", 224, 77.618, "bsd-3-clause"),
    _timm("tv2_in1k", 224, 81.182, "bsd-3-clause", crop_fraction=0.965, soft_labels=True),
    _timm("a1h_in1k", 288, 82.014, "apache-2.0", **_UNCROPPED),
    _timm("a1_in1k", 288, 81.466, "apache-2.0", **_UNCROPPED),
    _torchvision(1, "resnext50_32x4d-7cdf4587", 77.618),
    _torchvision(2, "resnext50_32x4d-1a0047aa", 81.198, crop_fraction=224 / 232, soft_labels=True),
)
CONVERSION = {layout: _RESNET_CONVERSION[layout] for layout in ("timm", "torchvision")}
