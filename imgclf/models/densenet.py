"""DenseNets with bottlenecks and compression (DenseNet-BC), 121, 169 and 201 layers deep.

Huang et al., 2017 (https://arxiv.org/abs/1608.06993), table 1. Parameter paths: `stem/{conv,bn}`, `block1/layer1/{bn1,conv1,bn2,
conv2}`, `transition1/{bn,conv}`, `bn`.
"""

import functools
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvBuilder, ConvNorm, NormBuilder
from imgclf.models.weights.conversion import Rule, Weights, batch_norm, conv, keras_batch_norm, linear, same


def _average_pool(x: jax.Array) -> jax.Array:
    """Means of 2x2 windows; an odd last row or column is left out."""
    h, w = (size // 2 * 2 for size in x.shape[1:3])
    rows, columns = (slice(0, h, 2), slice(1, h, 2)), (slice(0, w, 2), slice(1, w, 2))
    first, second, third, fourth = (layers.part(x, row, column) for row in rows for column in columns)
    return (first + second + third + fourth) * 0.25


class Layer(nnx.Module):
    """Normalise, ReLU, 1x1 convolution to 4 · growth, and again, 3x3 convolution to `growth` channels."""

    def __init__(self, in_features: int, growth: int, *, conv: ConvBuilder, norm: NormBuilder):
        self.bn1 = norm(in_features)
        self.conv1 = conv(in_features, 4 * growth, 1)
        self.bn2 = norm(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = self.conv1(jax.nn.relu(self.bn1(x, train=train)))
        return self.conv2(jax.nn.relu(self.bn2(x, train=train)))


class Block(nnx.Module):
    """Layers `layer1`, …; each reads the block's input and the outputs of all layers before it, concatenated."""

    def __init__(self, in_features: int, growth: int, depth: int, *, conv: ConvBuilder, norm: NormBuilder):
        self.depth = depth
        for i in range(depth):
            setattr(self, f"layer{i + 1}", Layer(in_features + i * growth, growth, conv=conv, norm=norm))

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i in range(1, self.depth + 1):
            x = jnp.concatenate([x, getattr(self, f"layer{i}")(x, train=train)], axis=-1)
        return x


class Transition(nnx.Module):
    """Normalise, ReLU, 1x1 convolution to half the channels, 2x2 average."""

    def __init__(self, in_features: int, *, conv: ConvBuilder, norm: NormBuilder):
        self.bn = norm(in_features)
        self.conv = conv(in_features, in_features // 2, 1)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        # The average is taken first: a 1x1 convolution without bias commutes with it, and has a quarter of the work then.
        return self.conv(_average_pool(jax.nn.relu(self.bn(x, train=train))))


class DenseNet(Backbone):
    """Stem (7x7/2, max-pool 3x3/2) and dense blocks of the given depths with transitions between them."""

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        growth: int = 32,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        conv = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        make_norm = functools.partial(layers.BatchNorm, **norm, rngs=rngs)
        features = 2 * growth
        self.stem = ConvNorm(conv(3, features, 7, stride=2), make_norm(features))
        for i, depth in enumerate(depths, start=1):
            setattr(self, f"block{i}", Block(features, growth, depth, conv=conv, norm=make_norm))
            features += depth * growth
            if i < len(depths):
                setattr(self, f"transition{i}", Transition(features, conv=conv, norm=make_norm))
                features //= 2
        self.bn = make_norm(features)
        self.blocks, self.features = len(depths), features

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: the stem rounds up, each transition down."""
        scale = 2 ** (self.blocks - 1)
        return -(-height // 4) // scale, -(-width // 4) // scale

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = layers.max_pool(jax.nn.relu(self.stem(image, train=train)), 3, 2, padding=1)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"block{i}")(x, train=train)
            if i < self.blocks:
                x = getattr(self, f"transition{i}")(x, train=train)
        return jax.nn.relu(self.bn(x, train=train))


def densenet121(**options: Any) -> DenseNet:
    return DenseNet((6, 12, 24, 16), **options)


def densenet169(**options: Any) -> DenseNet:
    return DenseNet((6, 12, 32, 32), **options)


def densenet201(**options: Any) -> DenseNet:
    return DenseNet((6, 12, 48, 32), **options)


def densenet_tiny(**options: Any) -> DenseNet:
    """Two blocks, of one layer and of two, a quarter of the growth: for tests."""
    return DenseNet((1, 2), growth=8, **options)


MODELS = {
    "densenet121": Model(densenet121, 7_978_856),
    "densenet169": Model(densenet169, 14_149_480),
    "densenet201": Model(densenet201, 20_013_928),
    "densenet_tiny": Model(densenet_tiny),
}

_TORCH: tuple[Rule, ...] = (
    (r"features\.conv0\.weight", "backbone/stem/conv/kernel", conv),
    *batch_norm(r"features\.norm0", "backbone/stem/bn"),
    # torchvision's files say `norm.1`; its models and timm say `norm1`
    (r"features\.denseblock(\d)\.denselayer(\d+)\.conv\.?(\d)\.weight", r"backbone/block\1/layer\2/conv\3/kernel", conv),
    *batch_norm(r"features\.denseblock(\d)\.denselayer(\d+)\.norm\.?(\d)", r"backbone/block\1/layer\2/bn\3"),
    (r"features\.transition(\d)\.conv\.weight", r"backbone/transition\1/conv/kernel", conv),
    *batch_norm(r"features\.transition(\d)\.norm", r"backbone/transition\1/bn"),
    *batch_norm(r"features\.norm5", "backbone/bn"),
    (r"classifier\.weight", "head/logits/kernel", linear),
    (r"classifier\.bias", "head/logits/bias", same),
)


def _keras_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = [
        (r"conv1[_/]conv/kernel", "backbone/stem/conv/kernel", same),  # older files have the slash
        *keras_batch_norm(r"conv1[_/]bn", "backbone/stem/bn"),
    ]
    for block in range(1, 5):  # conv2 is the first block, pool2 the transition behind it
        layer, path = rf"conv{block + 1}_block(\d+)_", rf"backbone/block{block}/layer\1"
        rules += [
            (layer + r"([12])_conv/kernel", path + r"/conv\2/kernel", same),
            *keras_batch_norm(layer + "0_bn", f"{path}/bn1"),
            *keras_batch_norm(layer + "1_bn", f"{path}/bn2"),
            (f"pool{block + 1}_conv/kernel", f"backbone/transition{block}/conv/kernel", same),
            *keras_batch_norm(f"pool{block + 1}_bn", f"backbone/transition{block}/bn"),
        ]
    rules += keras_batch_norm("bn", "backbone/bn")
    # the head's layer was called fc1000 before Keras 2.4
    return (*rules, (r"(?:predictions|fc1000)/(kernel|bias)", r"head/logits/\1", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _TORCH, "torchvision": _TORCH, "keras": _keras_rules()}

_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"
_KERAS = {"epsilon": 1.001e-5, "momentum": 0.99, "unbiased": False}


_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
_GMACS = {"densenet121": 2.87, "densenet169": 3.4, "densenet201": 4.34}  # timm's benchmark tables


def _timm(name: str, model: str, top1: float, **options: Any) -> Weights:
    repo, gmacs = f"timm/{name}", _GMACS[model]
    options = {"interpolation": "bicubic"} | options
    return Weights(repo, model, "timm", **options, repo=repo, top1=top1, gmacs=gmacs, licence="apache-2.0", source=_RESULTS)


def _weights(model: str, hub_top1: float, torchvision: str, torchvision_top1: float, keras_top1: float) -> tuple[Weights, ...]:
    keras = f"{model}_weights_tf_dim_ordering_tf_kernels.h5"
    gmacs = _GMACS[model]
    return (
        _timm(f"{model}.tv_in1k", model, hub_top1),
        Weights(
            f"torchvision/{model}.v1",
            model,
            "torchvision",
            file=f"{torchvision}.safetensors",
            top1=torchvision_top1,
            gmacs=gmacs,
            licence="bsd-3-clause",
            source=f"https://download.pytorch.org/models/{torchvision}.pth",
        ),
        # top-1: https://keras.io/api/applications/
        Weights(f"keras/{model}", model, "keras", variant=_KERAS, file=keras, top1=keras_top1, gmacs=gmacs, source=_KERAS_URL + keras),
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm("densenet121.ra_in1k", "densenet121", 75.574, soft_labels=True),
    *_weights("densenet121", 74.750, "densenet121-a639ec97", 74.434, 75.0),
    *_weights("densenet169", 75.922, "densenet169-b2777c0a", 75.600, 76.2),
    *_weights("densenet201", 77.284, "densenet201-c1103571", 76.896, 77.3),
)
