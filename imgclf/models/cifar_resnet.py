"""ResNets for 32x32 images: He et al., 2016 (https://arxiv.org/abs/1512.03385), section 4.2, with option-A shortcuts.

A 3x3 stem of 16 and three stages of n basic blocks, 16, 32 and 64 wide: 6n + 2 layers. Parameter paths: `stem/{conv,bn}`,
`stage1/0/{conv1,bn1,conv2,bn2}`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvNorm, ConvShape, ResidualBlock, Stage
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.weights.conversion import Rule, Weights, batch_norm, conv, linear, same


class CifarResNet(Backbone):
    """ResNet of 6n + 2 layers; `n` blocks a stage."""

    def __init__(self, n: int, *, dtype: jax.typing.DTypeLike = jnp.float32, rngs: nnx.Rngs):
        conv = functools.partial(layers.Conv, kernel_init=HE_NORMAL_FAN_OUT, dtype=dtype, rngs=rngs)
        norm = functools.partial(layers.BatchNorm, rngs=rngs)
        self.stem = ConvNorm(conv(3, 16, 3), norm(16))
        features = 16
        for i, width in enumerate((16, 32, 64)):
            blocks = []
            for j in range(n):
                convs = ConvShape(3, width, stride=2 if i > 0 and j == 0 else 1), ConvShape(3, width)
                blocks.append(ResidualBlock(features, convs, conv=conv, norm=norm, shortcut="pad"))
                features = width
            setattr(self, f"stage{i + 1}", Stage(blocks))
        self.features = features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a quarter, rounded up."""
        return -(-height // 4), -(-width // 4)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = jax.nn.relu(self.stem(image, train=train))
        for i in range(1, 4):
            x = getattr(self, f"stage{i}")(x, train=train)
        return x


def resnet20(**options: Any) -> CifarResNet:
    return CifarResNet(3, **options)


def resnet32(**options: Any) -> CifarResNet:
    return CifarResNet(5, **options)


def resnet44(**options: Any) -> CifarResNet:
    return CifarResNet(7, **options)


def resnet56(**options: Any) -> CifarResNet:
    return CifarResNet(9, **options)


MODELS = {
    "resnet20": Model(resnet20, 269_722),
    "resnet32": Model(resnet32, 464_154),
    "resnet44": Model(resnet44, 658_586),
    "resnet56": Model(resnet56, 853_018),
}


def _published(depth: int, file: str, top1: float) -> Weights:
    return Weights(
        f"akamaster/resnet{depth}_cifar10",
        f"resnet{depth}",
        "akamaster",
        input_size=(32, 32),
        file=f"resnet{depth}.cifar10.safetensors",
        num_classes=10,
        top1=top1,
        licence="bsd-2-clause",
        source=f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{file}",
    )


# top-1 is of CIFAR-10's test set, as the files themselves say (best_prec1)
WEIGHTS: tuple[Weights, ...] = (
    _published(20, "resnet20-12fca82f.th", 91.78),
    _published(32, "resnet32-d509ac18.th", 92.78),
    _published(44, "resnet44-014dd654.th", 93.14),
    _published(56, "resnet56-4bfd9763.th", 93.62),
)

_BLOCK, _PATH = r"layer(\d)\.(\d+)\.", r"backbone/stage\1/\2/"
CONVERSION: dict[str, tuple[Rule, ...]] = {
    "akamaster": (
        (r"conv1\.weight", "backbone/stem/conv/kernel", conv),
        *batch_norm("bn1", "backbone/stem/bn"),
        (_BLOCK + r"conv(\d)\.weight", _PATH + r"conv\3/kernel", conv),
        *batch_norm(_BLOCK + r"bn(\d)", _PATH + r"bn\3"),
        (r"linear\.weight", "head/logits/kernel", linear),
        (r"linear\.bias", "head/logits/bias", same),
    )
}
