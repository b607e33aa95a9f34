"""VGG with 16 and 19 layers: blocks of 3x3 convolutions, each ended by 2x2 max-pooling.

Simonyan and Zisserman, 2015 (https://arxiv.org/abs/1409.1556), table 1, columns D and E. Parameter paths: `block1/conv1`; the first
15 layers of Keras's VGG16 (input, convolutions, pools) are `block1` to `block4`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.heads import Head, OutputLayer, dropout_in_training
from imgclf.models.weights.conversion import CAFFE_MEAN, CAFFE_STD, Rule, Weights, bgr, conv, linear, linear_chw, pointwise, same


class Block(nnx.Module):
    """Convolutions `conv1`, `conv2`, …, each followed by ReLU, and max-pooling."""

    def __init__(self, in_features: int, features: int, convs: int, *, dtype: Any, rngs: nnx.Rngs):
        self.convs = convs
        for i in range(1, convs + 1):
            conv = layers.Conv(in_features if i == 1 else features, features, 3, use_bias=True, dtype=dtype, rngs=rngs)
            setattr(self, f"conv{i}", conv)

    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(1, self.convs):
            x = jax.nn.relu(getattr(self, f"conv{i}")(x))
        return getattr(self, f"conv{self.convs}").max_pool_relu(x)


class VGG(Backbone):
    """Blocks `block1`, … of the given numbers of convolutions; widths double from `width` to eight times that.

    There is no normalisation: `train` changes nothing.
    """

    def __init__(self, depths: tuple[int, ...], *, width: int = 64, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        features = 3
        for i, convs in enumerate(depths):
            block = Block(features, width * min(2**i, 8), convs, dtype=dtype, rngs=rngs)
            setattr(self, f"block{i + 1}", block)
            features = width * min(2**i, 8)
        self.blocks, self.features = len(depths), features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded down."""
        return height // 2**self.blocks, width // 2**self.blocks

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        del train  # the network does the same in training
        x = image
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"block{i}")(x)
        return x


def _bins(size: int, bins: int) -> np.ndarray:
    """Weights [bins, size] of torch's adaptive average pooling: bin i averages pixels floor(i·size/bins) to ceil((i+1)·size/bins)."""
    weights = np.zeros((bins, size), np.float32)
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def adaptive_average_pool(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Averages maps over a grid of bins of nearly equal size, also fewer pixels than bins: [B,h,w,D] to [B,*size,D]."""
    if maps.shape[1:3] == size:
        return maps
    rows, columns = (_bins(pixels, bins).astype(maps.dtype) for pixels, bins in zip(maps.shape[1:3], size, strict=True))
    return jnp.einsum("ih,jw,bhwd->bijd", rows, columns, maps, precision=jax.lax.Precision.HIGHEST)


class VGGHead(Head):
    """The head that the network was published with: average to `pool_size`, flatten, two hidden layers, logits.

    Paths: `fc1`, `fc2`, `logits`. The averaging is torchvision's, for images of other sizes than 224x224.
    """

    def __init__(  # noqa: PLR0913  (options by name)
        self,
        map_size: tuple[int, int],
        features: int,
        outputs: int,
        *,
        pool_size: tuple[int, int] = (7, 7),
        hidden: int = 4096,
        dropout: float = 0.5,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del map_size  # maps of any size are averaged
        self.pool_size, self.dropout = pool_size, dropout
        init = nnx.initializers.normal(0.01)  # as torchvision
        width = math.prod(pool_size) * features
        self.fc1 = layers.Dense(width, hidden, kernel_init=init, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
        self.fc2 = layers.Dense(hidden, hidden, kernel_init=init, dtype=dtype, param_dtype=jnp.float32, rngs=rngs)
        self.logits = OutputLayer(hidden, outputs, kernel_init=init, rngs=rngs)

    def __call__(self, maps: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        x = adaptive_average_pool(maps, self.pool_size)
        x = x.reshape(x.shape[0], -1)
        for i, layer in enumerate((self.fc1, self.fc2)):
            x = dropout_in_training(jax.nn.relu(layer(x)), self.dropout, train, None if key is None else jax.random.fold_in(key, i))
        return self.with_sigmoid(self.logits(x.astype(jnp.float32)))


HEAD = VGGHead

_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def vgg16(**options: Any) -> VGG:
    return VGG(_DEPTHS["vgg16"], **options)


def vgg19(**options: Any) -> VGG:
    return VGG(_DEPTHS["vgg19"], **options)


def vgg_tiny(**options: Any) -> VGG:
    """Two blocks of one and two of two convolutions, an eighth of the width: for tests."""
    return VGG((1, 1, 2, 2), width=8, **options)


MODELS = {
    "vgg16": Model(vgg16, 138_357_544),
    "vgg19": Model(vgg19, 143_667_240),
    "vgg_tiny": Model(vgg_tiny),
}


def _torch_rules(depths: tuple[int, ...]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    index = 0  # in torch's nn.Sequential, where a convolution and its ReLU take two places and a pool one
    for block, convs in enumerate(depths, start=1):
        for i in range(1, convs + 1):
            rules.append((rf"features\.{index}\.weight", f"backbone/block{block}/conv{i}/kernel", conv))
            rules.append((rf"features\.{index}\.bias", f"backbone/block{block}/conv{i}/bias", same))
            index += 2
        index += 1
    # timm writes the first two as convolutions, 7x7 and 1x1
    for names, path, transform in (
        (r"(pre_logits\.fc1|classifier\.0)", "head/fc1", linear_chw(7, 7)),
        (r"(pre_logits\.fc2|classifier\.3)", "head/fc2", pointwise),
        (r"(head\.fc|classifier\.6)", "head/logits", linear),
    ):
        rules += [(rf"{names}\.weight", f"{path}/kernel", transform), (rf"{names}\.bias", f"{path}/bias", same)]
    return tuple(rules)


# Keras's published files are of version 1's time: `block1_conv1_W_1`, `block1_conv1_b_1`.
_KERNEL, _BIAS = r"(?:kernel|\w+_W(?:_1)?)", r"(?:bias|\w+_b(?:_1)?)"
CONVERSION: dict[str, tuple[Rule, ...]] = {
    "torch16": _torch_rules(_DEPTHS["vgg16"]),
    "torch19": _torch_rules(_DEPTHS["vgg19"]),
    "keras": (
        (f"block1_conv1/{_KERNEL}", "backbone/block1/conv1/kernel", bgr),
        (rf"block(\d)_conv(\d)/{_KERNEL}", r"backbone/block\1/conv\2/kernel", same),
        (rf"block(\d)_conv(\d)/{_BIAS}", r"backbone/block\1/conv\2/bias", same),
        (f"(fc1|fc2)/{_KERNEL}", r"head/\1/kernel", same),
        (f"(fc1|fc2)/{_BIAS}", r"head/\1/bias", same),
        (f"predictions/{_KERNEL}", "head/logits/kernel", same),
        (f"predictions/{_BIAS}", "head/logits/bias", same),
    ),
}


_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _weights(depth: int, hub_top1: float, torchvision: str, torchvision_top1: float) -> tuple[Weights, ...]:
    model, keras = f"vgg{depth}", f"vgg{depth}_weights_tf_dim_ordering_tf_kernels.h5"
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/{model}/{keras}"
    hub, layout, gmacs = f"timm/{model}.tv_in1k", f"torch{depth}", {16: 15.47, 19: 19.63}[depth]
    return (
        Weights(hub, model, layout, repo=hub, top1=hub_top1, gmacs=gmacs, licence="bsd-3-clause", source=_RESULTS),
        Weights(
            f"torchvision/{model}.v1",
            model,
            layout,
            file=f"{torchvision}.safetensors",
            top1=torchvision_top1,
            gmacs=gmacs,
            licence="bsd-3-clause",
            source=f"https://download.pytorch.org/models/{torchvision}.pth",
        ),
        # top-1: https://keras.io/api/applications/, the same for both
        Weights(f"keras/{model}", model, "keras", mean=CAFFE_MEAN, std=CAFFE_STD, file=keras, top1=71.3, gmacs=gmacs, source=url),
    )


WEIGHTS: tuple[Weights, ...] = (
    *_weights(16, 71.594, "vgg16-397923af", 71.592),
    *_weights(19, 72.400, "vgg19-dcbb9e9d", 72.376),
)
