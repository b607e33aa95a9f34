"""SqueezeNet 1.0 and 1.1: Iandola et al., 2016 (https://arxiv.org/abs/1602.07360), figure 2 and table 1; 1.1 is the authors' later version.

Parameter paths: `conv1`, `fire2/{squeeze,expand1x1,expand3x3}` to `fire9`, each with kernel and bias; there is no normalisation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import initializers, layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.heads import Head, OutputLayer, average, dropout_in_training
from imgclf.models.weights.conversion import Rule, Weights, conv, linear, same

# squeeze and expand channels of fire2 to fire9 (figure 2); each expansion counts twice, 1x1 and 3x3
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nnx.Module):
    """Squeeze (1x1), then 1x1 and 3x3 expansions side by side; ReLU after each."""

    def __init__(self, in_features: int, squeeze: int, expand: int, *, dtype: Any, rngs: nnx.Rngs):
        options = {"use_bias": True, "dtype": dtype, "rngs": rngs}
        self.squeeze = layers.Conv(in_features, squeeze, 1, **options)
        self.expand1x1 = layers.Conv(squeeze, expand, 1, **options)
        self.expand3x3 = layers.Conv(squeeze, expand, 3, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.squeeze(x))
        return jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], -1))


def _pooled(size: int) -> int:
    return -(-(size - 3) // 2) + 1


def _max_pool(x: jax.Array) -> jax.Array:
    """3x3/2, rounded up: a last window that hangs over the edge counts, as in Caffe and torch's ceil_mode."""
    edges = [(0, max(0, 2 * _pooled(size) + 1 - size), 0) for size in x.shape[1:3]]
    return layers.max_pool(jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), ((0, 0, 0), *edges, (0, 0, 0))), 3, 2)


class SqueezeNet(Backbone):
    """A convolution and eight fire modules; max-pooling after the convolution and before the fire modules in `pools`."""

    def __init__(
        self,
        *,
        stem: int,
        kernel: int,
        pools: tuple[int, ...],
        fires: tuple[tuple[int, int], ...] = _FIRES,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv1 = layers.Conv(3, stem, kernel, stride=2, padding=((0, 0), (0, 0)), use_bias=True, dtype=dtype, rngs=rngs)
        self.kernel, self.pools, self.fires = kernel, pools, len(fires)
        features = stem
        for i, (squeeze, expand) in enumerate(fires, start=2):
            setattr(self, f"fire{i}", Fire(features, squeeze, expand, dtype=dtype, rngs=rngs))
            features = 2 * expand
        self.features = features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size; below 1 where they are too small."""

        def size(pixels: int) -> int:
            pixels = _pooled((pixels - self.kernel) // 2 + 1)
            for _ in self.pools:
                pixels = _pooled(pixels)
            return pixels

        return size(height), size(width)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # the network does the same in training
        x = _max_pool(jax.nn.relu(self.conv1(image)))
        for i in range(2, 2 + self.fires):
            if i in self.pools:
                x = _max_pool(x)
            x = getattr(self, f"fire{i}")(x)
        return x


def _normal_of_a_hundredth(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """The authors' initialisation of the last convolution: normal, standard deviation 0.01."""
    del out_sharding
    return (0.01 * initializers.normal(key, shape)).astype(dtype)


class SqueezeNetHead(Head):
    """The published head: dropout, a 1x1 convolution to the classes, ReLU, average. Its logits are not negative."""

    def __init__(
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        dropout: float = 0.5,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del map_size, dtype  # maps of any size will do, and the head computes in float32
        self.dropout = dropout
        # a 1x1 convolution is a linear layer on every pixel
        self.logits = OutputLayer(features, outputs, kernel_init=_normal_of_a_hundredth, rngs=rngs)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        maps = dropout_in_training(maps.astype(jnp.float32), self.dropout, train, key)
        return average(jax.nn.relu(self.logits(maps)))


HEAD = SqueezeNetHead


def squeezenet1_0(**options: Any) -> SqueezeNet:
    return SqueezeNet(stem=96, kernel=7, pools=(5, 9), **options)


def squeezenet1_1(**options: Any) -> SqueezeNet:
    return SqueezeNet(stem=64, kernel=3, pools=(4, 6), **options)


def squeezenet_tiny(**options: Any) -> SqueezeNet:
    """Two fire modules, an eighth of the width: for tests."""
    return SqueezeNet(stem=8, kernel=3, pools=(3,), fires=((4, 8), (4, 16)), **options)


MODELS = {
    "squeezenet1_0": Model(squeezenet1_0, 1_248_424),
    "squeezenet1_1": Model(squeezenet1_1, 1_235_496),
    "squeezenet_tiny": Model(squeezenet_tiny),
}


def _torchvision(pools: tuple[int, ...]) -> tuple[Rule, ...]:
    rules: list[Rule] = [
        (r"features\.0\.weight", "backbone/conv1/kernel", conv),
        (r"features\.0\.bias", "backbone/conv1/bias", same),
        # pools stand between the fire modules and are counted
    ]
    for i in range(2, 10):
        layer, path = rf"features\.{i + 1 + sum(i >= pool for pool in pools)}\.(squeeze|expand1x1|expand3x3)", rf"backbone/fire{i}/\1"
        rules += [(layer + r"\.weight", path + "/kernel", conv), (layer + r"\.bias", path + "/bias", same)]
    return (*rules, (r"classifier\.1\.weight", "head/logits/kernel", linear), (r"classifier\.1\.bias", "head/logits/bias", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {
    "torchvision1_0": _torchvision((5, 9)),
    "torchvision1_1": _torchvision((4, 6)),
}
WEIGHTS: tuple[Weights, ...] = (
    Weights(
        "torchvision/squeezenet1_0.v1",
        "squeezenet1_0",
        "torchvision1_0",
        file="squeezenet1_0-b66bff10.safetensors",
        top1=58.092,
        gmacs=0.819,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
    ),
    Weights(
        "torchvision/squeezenet1_1.v1",
        "squeezenet1_1",
        "torchvision1_1",
        file="squeezenet1_1-b8a52dc0.safetensors",
        top1=58.178,
        gmacs=0.349,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    ),
)
