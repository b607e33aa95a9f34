"""MobileNetV3-Large: Howard et al., 2019 (https://arxiv.org/abs/1905.02244), table 1.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` and, where a block has it, `blocks/3/se/{reduce,expand}`,
to `blocks/14`, `last/{conv,bn}`; block 0 has no `expand`. The published head is `head/hidden`, `head/logits`.

The network's second last layer, of 1,280 units, comes after the average over the maps, to save multiplications (section 5.1, figure 5).
It is part of the head here. So features are the 960 averaged channels of the last convolution on maps, as timm's `forward_features` has
them: a probe, a map of attention and a head for other classes start there, as for every other family, and the layer that was trained
last and longest for ImageNet's own classes is left out of them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import Activation, ConvNorm, InvertedResidual, SqueezeExcite, Stage
from imgclf.models.heads import Head, OutputLayer, average, dropout_in_training
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.mobilenet_v2 import round_channels
from imgclf.models.weights.conversion import HALF, Rule, Transform, Weights, batch_norm, conv, linear, pointwise, same


@dataclasses.dataclass(frozen=True)
class Block:
    """A row of the paper's table: an inverted residual."""

    kernel: int
    width: int  # channels of the depthwise convolution
    features: int
    squeeze_excite: bool
    activation: Activation
    stride: int = 1


_RELU, _SWISH = jax.nn.relu, jax.nn.hard_swish
_LARGE = (
    Block(3, 16, 16, False, _RELU),
    Block(3, 64, 24, False, _RELU, 2),
    Block(3, 72, 24, False, _RELU),
    Block(5, 72, 40, True, _RELU, 2),
    Block(5, 120, 40, True, _RELU),
    Block(5, 120, 40, True, _RELU),
    Block(3, 240, 80, False, _SWISH, 2),
    Block(3, 200, 80, False, _SWISH),
    Block(3, 184, 80, False, _SWISH),
    Block(3, 184, 80, False, _SWISH),
    Block(3, 480, 112, True, _SWISH),
    Block(3, 672, 112, True, _SWISH),
    Block(5, 672, 160, True, _SWISH, 2),
    Block(5, 960, 160, True, _SWISH),
    Block(5, 960, 160, True, _SWISH),
)


class MobileNetV3(Backbone):
    """Stem (3x3/2), inverted residuals, and a 1x1 convolution to `last` channels; `norm` are options of batch normalisation."""

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        stem: int,
        last: int,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        make_conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        make_depthwise = functools.partial(layers.DepthwiseConv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)

        def squeeze_excite(features: int, _: int) -> SqueezeExcite:
            """A quarter of the block's own width, not of its input's (section 5.3)."""
            inner = round_channels(features / 4)
            return SqueezeExcite(features, inner, activation=jax.nn.relu, gate=jax.nn.hard_sigmoid, dtype=dtype, rngs=rngs)

        self.stem = ConvNorm(make_conv(3, stem, 3, stride=2), make_norm(stem))
        features, made = stem, []
        for block in blocks:
            made.append(
                InvertedResidual(
                    features,
                    block.features,
                    expansion=block.width / features,
                    stride=block.stride,
                    conv=make_conv,
                    depthwise=functools.partial(make_depthwise, kernel=block.kernel),
                    norm=make_norm,
                    activation=block.activation,
                    squeeze_excite=squeeze_excite if block.squeeze_excite else None,
                )
            )
            features = block.features
        self.blocks = Stage(made)
        self.last = ConvNorm(make_conv(features, last, 1), make_norm(last))
        self.features = last
        self.halvings = 1 + sum(block.stride == 2 for block in blocks)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: half of it for each stride of 2, rounded up."""
        return -(-height // 2**self.halvings), -(-width // 2**self.halvings)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.hard_swish(self.stem(image, train=train))
        x = self.blocks(x, train=train)
        return jax.nn.hard_swish(self.last(x, train=train))


class MobileNetHead(Head):
    """Average pooling, a hidden layer of `units`, dropout, the output layer. Paths: `hidden`, with `norm` also `bn`, and `logits`.

    With `norm`, the hidden layer has batch normalisation before its activation, and no bias (MobileNetV4).
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        activation: Activation,
        norm: bool = False,
        units: int = 1280,
        dropout: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del map_size  # maps of any size will do
        self.activation, self.dropout, self.norm = activation, dropout, norm
        options = {"kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "param_dtype": jnp.float32}
        self.hidden = layers.Dense(features, units, use_bias=not norm, **options, rngs=rngs)
        if norm:
            self.bn = layers.BatchNorm(units, rngs=rngs)
        self.logits = OutputLayer(units, outputs, rngs=rngs)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        x = self.hidden(average(maps))
        x = self.activation(self.bn(x, train=train) if self.norm else x)
        return self.with_sigmoid(self.logits(dropout_in_training(x, self.dropout, train, key).astype(jnp.float32)))


HEAD = functools.partial(MobileNetHead, activation=jax.nn.hard_swish)


def mobilenet_v3_large(**options: Any) -> MobileNetV3:
    return MobileNetV3(_LARGE, stem=16, last=960, **options)


def mobilenet_v3_tiny(**options: Any) -> MobileNetV3:
    """Three blocks of few channels, one with squeeze-and-excitation: for tests."""
    blocks = Block(3, 8, 8, False, _RELU), Block(5, 24, 16, True, _RELU, 2), Block(3, 48, 24, False, _SWISH, 2)
    return MobileNetV3(blocks, stem=8, last=64, **options)


MODELS = {
    "mobilenet_v3_large": Model(mobilenet_v3_large, 5_483_032),
    "mobilenet_v3_tiny": Model(mobilenet_v3_tiny),
}

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(name: str, top1: float, **preprocessing: Any) -> Weights:
    repo, options = f"timm/{name}", preprocessing | {"soft_labels": True}
    return Weights(repo, "mobilenet_v3_large", "timm", **options, repo=repo, top1=top1, gmacs=0.23, licence="apache-2.0", source=_RESULTS)


def _torchvision(version: int, file: str, top1: float, crop_fraction: float) -> Weights:
    return Weights(
        f"torchvision/mobilenet_v3_large.v{version}",
        "mobilenet_v3_large",
        "torchvision",
        crop_fraction=crop_fraction,
        variant={"epsilon": 1e-3, "momentum": 0.99},
        file=f"{file}.safetensors",
        top1=top1,
        gmacs=0.217,
        licence="bsd-3-clause",
        source=f"https://download.pytorch.org/models/{file}.pth",
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm("mobilenetv3_large_100.ra_in1k", 75.784, interpolation="bicubic"),
    _timm("mobilenetv3_large_100.ra4_e3600_r224_in1k", 76.310, crop_fraction=0.95, interpolation="bicubic", mean=HALF, std=HALF),
    # pre-trained on ImageNet-21k-P; its images are on [0, 1] (https://github.com/Alibaba-MIIL/ImageNet21K)
    _timm("mobilenetv3_large_100.miil_in21k_ft_in1k", 77.920, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    _torchvision(1, "mobilenet_v3_large-8738ca79", 74.042, 224 / 256),
    _torchvision(2, "mobilenet_v3_large-5c1a4163", 75.274, 224 / 232),
)


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _dense(layer: str, path: str, kernel: Transform = pointwise) -> tuple[Rule, ...]:
    return ((rf"{layer}\.weight", f"{path}/kernel", kernel), (rf"{layer}\.bias", f"{path}/bias", same))


def _timm_rules() -> tuple[Rule, ...]:
    rules = [*_torch("conv_stem", "bn1", "backbone/stem")]
    places = [(stage, i) for stage, depth in enumerate((1, 2, 3, 4, 2, 3)) for i in range(depth)]
    for n, (stage, i) in enumerate(places):
        layer, path = rf"blocks\.{stage}\.{i}\.", f"backbone/blocks/{n}"
        # without an expansion, layers count from the depthwise one
        names = [("expand", "conv_pw")] * (n > 0) + [("depthwise", "conv_dw"), ("project", "conv_pwl" if n > 0 else "conv_pw")]
        for place, (part, name) in enumerate(names, start=1):
            rules += _torch(layer + name, f"{layer}bn{place}", f"{path}/{part}")
        rules += _dense(rf"{layer}se\.conv_(reduce|expand)", rf"{path}/se/\1")
    rules += _torch(r"blocks\.6\.0\.conv", r"blocks\.6\.0\.bn1", "backbone/last")
    return (*rules, *_dense("conv_head", "head/hidden"), *_dense("classifier", "head/logits", linear))


def _torchvision_rules() -> tuple[Rule, ...]:
    rules = [*_torch(r"features\.0\.0", r"features\.0\.1", "backbone/stem")]
    for n, block in enumerate(_LARGE):
        layer, path = rf"features\.{n + 1}\.block\.", f"backbone/blocks/{n}"
        parts = ["expand"] * (n > 0) + ["depthwise"] + ["se"] * block.squeeze_excite + ["project"]
        for place, part in enumerate(parts):
            if part == "se":
                rules += _dense(rf"{layer}{place}\.fc1", f"{path}/se/reduce") + _dense(rf"{layer}{place}\.fc2", f"{path}/se/expand")
            else:
                rules += _torch(rf"{layer}{place}\.0", rf"{layer}{place}\.1", f"{path}/{part}")
    rules += _torch(r"features\.16\.0", r"features\.16\.1", "backbone/last")
    return (*rules, *_dense(r"classifier\.0", "head/hidden", linear), *_dense(r"classifier\.3", "head/logits", linear))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "torchvision": _torchvision_rules()}
