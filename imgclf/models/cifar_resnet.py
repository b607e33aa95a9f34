"""ResNets for 32x32 images: He et al., 2016 (https://arxiv.org/abs/1512.03385), section 4.2, with option-A shortcuts.

A 3x3 stem of 16 and three stages of n basic blocks, 16, 32 and 64 wide: 6n + 2 layers. Parameter paths: `stem/{conv,bn}`,
`stage1/0/{conv1,bn1,conv2,bn2}`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models.resnet import Block, ConvNorm, Stage


class CifarResNet(nnx.Module):
    """ResNet of 6n + 2 layers; `n` blocks a stage."""

    def __init__(self, n: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, 16, 3, dtype=dtype, rngs=rngs)
        features = 16
        for i, width in enumerate((16, 32, 64)):
            blocks = []
            for j in range(n):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(features, ((3, width, stride), (3, width, 1)), pad_shortcut=True, dtype=dtype, rngs=rngs))
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
