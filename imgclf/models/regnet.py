"""RegNetY: Radosavovic et al., 2020 (https://arxiv.org/abs/2003.13678), table 4: bottlenecks without a bottleneck.

A block is a 1x1 convolution, a grouped 3x3 one, squeeze-and-excitation, and a 1x1 one, all of one width. Depths and widths of the stages
are what the paper's rule gives for each size (section 3.3).

Parameter paths: `stem/{conv,bn}`, `stage1/0/{conv1,bn1,conv2,bn2,conv3,bn3}`, `stage1/0/se/{reduce,expand}`,
`stage1/0/downsample/{conv,bn}`.
"""

import functools
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvNorm, ResidualBlock, SqueezeExcite, Stage, bottleneck
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import Rule, Transform, Weights, batch_norm, conv, linear, pointwise, same


class RegNetY(Backbone):
    """Stem (3x3/2) and four stages, each of which halves the maps.

    Args:
      depths, widths: blocks and channels of each stage.
      group_width: channels of a group of the 3x3 convolutions.
      stem: channels of the stem.
      zero_init_last: whether the last scale of each block starts at 0, as in timm.
      norm: options of batch normalisation.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        group_width: int,
        *,
        stem: int = 32,
        zero_init_last: bool = True,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        make_conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)

        def block(in_features: int, width: int, stride: int) -> ResidualBlock:
            excite = functools.partial(
                SqueezeExcite, width=round(in_features / 4), activation=jax.nn.relu, dtype=dtype, rngs=rngs
            )  # a quarter of the input's channels
            convs = bottleneck(width, width, strides=(1, stride), groups=width // group_width)
            return ResidualBlock(in_features, convs, conv=make_conv, norm=make_norm, zero_init_last=zero_init_last, squeeze_excite=excite)

        self.stem = ConvNorm(make_conv(3, stem, 3, stride=2), make_norm(stem))
        features = stem
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            rest = [block(width, width, 1) for _ in range(depth - 1)]
            setattr(self, f"stage{i}", Stage([block(features, width, 2), *rest]))
            features = width
        self.stages = len(depths)
        self.features = features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded up."""
        return -(-height // 32), -(-width // 32)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.relu(self.stem(image, train=train))
        for i in range(1, self.stages + 1):
            x = getattr(self, f"stage{i}")(x, train=train)
        return x


def regnet_y_4gf(**options: Any) -> RegNetY:
    return RegNetY((2, 6, 12, 2), (128, 192, 512, 1088), 64, **options)


def regnet_y_8gf(*, widths: tuple[int, ...] = (168, 448, 896, 2016), **options: Any) -> RegNetY:
    """RegNetY-8GF; torchvision's has other `widths`, (224, 448, 896, 2016): it rounds the first to whole groups otherwise."""
    return RegNetY((2, 4, 10, 1), widths, 56, **options)


def regnet_y_16gf(**options: Any) -> RegNetY:
    return RegNetY((2, 4, 11, 1), (224, 448, 1232, 3024), 112, **options)


def regnet_tiny(*, widths: tuple[int, ...] = (16, 16, 24, 32), **options: Any) -> RegNetY:
    """A block or two a stage, of few channels: for tests."""
    return RegNetY((1, 2, 1, 1), widths, 8, stem=8, **options)


MODELS = {
    "regnet_y_4gf": Model(regnet_y_4gf, 20_646_656),
    "regnet_y_8gf": Model(regnet_y_8gf, 39_180_068),
    "regnet_y_16gf": Model(regnet_y_16gf, 83_590_140),
    "regnet_tiny": Model(regnet_tiny),
}

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
_GMACS = {4: 4.0, 8: 8.0, 16: 15.96}  # timm's benchmark tables, at 224x224
_SWAG = {"licence": "cc-by-nc-4.0", "commercial": False, "source": "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"}


def _timm(size: int, recipe: str, top1: float, **options: Any) -> Weights:
    name, model = f"timm/regnety_{size:02}0.{recipe}", f"regnet_y_{size}gf"
    defaults: dict[str, Any] = {
        "crop_fraction": 0.95,
        "licence": "apache-2.0",
        "soft_labels": True,
        "gmacs": _GMACS[size],
        "source": _RESULTS,
    }
    return Weights(name, model, "timm", interpolation="bicubic", repo=name, top1=top1, **(defaults | options))


def _torchvision(size: int, version: int, file: str, top1: float) -> Weights:
    resized = {1: 256, 2: 232}[version]
    return Weights(
        f"torchvision/regnet_y_{size}gf.v{version}",
        f"regnet_y_{size}gf",
        "torchvision",
        crop_fraction=224 / resized,
        variant={"widths": (224, 448, 896, 2016)} if size == 8 else {},
        file=f"{file}.safetensors",
        top1=top1,
        soft_labels=version == 2,
        gmacs={8: 8.473, 16: 15.912}[size],
        licence="bsd-3-clause",
        source=f"https://download.pytorch.org/models/{file}.pth",
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm(4, "ra3_in1k", 82.308),
    _timm(4, "pycls_in1k", 79.246, crop_fraction=0.875, licence="mit", soft_labels=False),
    _timm(8, "ra3_in1k", 83.166),
    _timm(8, "pycls_in1k", 79.874, crop_fraction=0.875, licence="mit", soft_labels=False),
    _timm(16, "lion_in12k_ft_in1k", 85.602),
    _timm(16, "sw_in12k_ft_in1k", 85.596),
    _timm(16, "pycls_in1k", 80.284, crop_fraction=0.875, licence="mit", soft_labels=False),
    # Singh et al., 2022 (https://arxiv.org/abs/2201.08371): trained on hashtags, then on ImageNet; or a linear classifier on that
    _timm(16, "swag_ft_in1k", 86.020, input_size=(384, 384), crop_fraction=1.0, **(_SWAG | {"gmacs": 46.87})),
    _timm(16, "swag_lc_in1k", 83.806, crop_fraction=0.965, linear_probe=83.806, **_SWAG),
    _torchvision(8, 1, "regnet_y_8gf-d0d0e4a8", 80.032),
    _torchvision(8, 2, "regnet_y_8gf-dc2b1b54", 82.828),
    _torchvision(16, 1, "regnet_y_16gf-9e6ed7dd", 80.424),
    _torchvision(16, 2, "regnet_y_16gf-3e4a00f9", 82.886),
)


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _dense(layer: str, path: str, kernel: Transform = pointwise) -> tuple[Rule, ...]:
    return ((rf"{layer}\.weight", f"{path}/kernel", kernel), (rf"{layer}\.bias", f"{path}/bias", same))


def _timm_rules() -> tuple[Rule, ...]:
    rules = [*_torch(r"stem\.conv", r"stem\.bn", "backbone/stem")]
    for i in range(12):  # blocks are counted from 1
        block, path = rf"s(\d)\.b{i + 1}\.", rf"backbone/stage\1/{i}/"
        rules += [
            (block + r"conv(\d)\.conv\.weight", path + r"conv\2/kernel", conv),
            *batch_norm(block + r"conv(\d)\.bn", path + r"bn\2"),
            *_dense(block + r"se\.fc1", path + "se/reduce"),
            *_dense(block + r"se\.fc2", path + "se/expand"),
            *_torch(block + r"downsample\.conv", block + r"downsample\.bn", path + "downsample"),
        ]
    return (*rules, *_dense(r"head\.fc", "head/logits", linear))


def _torchvision_rules() -> tuple[Rule, ...]:
    block, path = r"trunk_output\.block(\d)\.block\d-(\d+)\.", r"backbone/stage\1/\2/"
    rules = [
        *_torch(r"stem\.0", r"stem\.1", "backbone/stem"),
        *_torch(block + r"proj\.0", block + r"proj\.1", path + "downsample"),
        *_dense(block + r"f\.se\.fc1", path + "se/reduce"),
        *_dense(block + r"f\.se\.fc2", path + "se/expand"),
    ]
    for i, letter in enumerate("abc", start=1):
        rules += [
            (block + rf"f\.{letter}\.0\.weight", path + f"conv{i}/kernel", conv),
            *batch_norm(block + rf"f\.{letter}\.1", path + f"bn{i}"),
        ]
    return (*rules, *_dense("fc", "head/logits", linear))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "torchvision": _torchvision_rules()}
