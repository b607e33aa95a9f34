"""Inception V3: Szegedy et al., 2016 (https://arxiv.org/abs/1512.00567), as released with TensorFlow-Slim; without auxiliary head.

Parameter paths: `conv1/{conv,bn}` to `conv5`, `mixed0/branch5x5_1/{conv,bn}` to `mixed10/…`; blocks are numbered as in Keras,
branches named as in torchvision (whose Mixed_5b is `mixed0`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.blocks import ConvBuilder, ConvNorm, NormBuilder
from imgclf.models.weights.conversion import HALF, IMAGENET_MEAN, IMAGENET_STD, Rule, Weights, batch_norm, conv, linear, same

_VALID = ((0, 0), (0, 0))


class ConvNormReLU(ConvNorm):
    """Convolution, normalisation, ReLU: `conv`, `bn`."""

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return jax.nn.relu(super().__call__(x, train=train))

    def after_average(self, x: jax.Array, counts_padding: bool, *, train: bool = False) -> jax.Array:
        """self(average_pool(x)) for 1x1 kernels, which commute with the average: the average is of the fewer channels then."""
        return jax.nn.relu(self.bn(average_pool(self.conv(x), counts_padding), train=train))


def average_pool(x: jax.Array, counts_padding: bool) -> jax.Array:
    """Means of 3x3 windows around each pixel; zeros over the edge count (torch), or not (TensorFlow)."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    whole, thirds = slice(None), (slice(None, -2), slice(1, -1), slice(2, None))
    before, here, behind = (layers.part(padded, rows) for rows in thirds)
    sums = before + here + behind
    before, here, behind = (layers.part(sums, whole, columns) for columns in thirds)
    sums = before + here + behind
    if counts_padding:
        return sums * jnp.asarray(1 / 9, x.dtype)
    rows, columns = (np.minimum(np.arange(size), 1) + np.minimum(np.arange(size)[::-1], 1) + 1 for size in (height, width))
    return sums * jnp.asarray(1 / np.outer(rows, columns)[..., None], x.dtype)


# A branch: convolutions one after another, (features, (kh, kw)) or, at stride 2, (features, (kh, kw), 2); those of a pair at its end have
# the same input, and their outputs are concatenated.
_Conv = tuple[Any, ...]
_Branches = Mapping[str, Sequence[_Conv]]


def _with_5x5(pooled: int) -> _Branches:
    """Figure 5: a 5x5 convolution beside two of 3x3, for 35x35 maps."""
    return {
        "branch1x1": [(64, (1, 1))],
        "branch5x5": [(48, (1, 1)), (64, (5, 5))],
        "branch3x3dbl": [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))],
        "branch_pool": [(pooled, (1, 1))],
    }


def _with_7x7(width: int) -> _Branches:
    """Figure 6: 7x7 convolutions factorised into 1x7 and 7x1, for 17x17 maps."""
    return {
        "branch1x1": [(192, (1, 1))],
        "branch7x7": [(width, (1, 1)), (width, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(width, (1, 1)), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))],
        "branch_pool": [(192, (1, 1))],
    }


_TO_17: _Branches = {
    "branch3x3": [(384, (3, 3), 2)],
    "branch3x3dbl": [(64, (1, 1)), (96, (3, 3)), (96, (3, 3), 2)],
    "max_pool": [],
}
_TO_8: _Branches = {
    "branch3x3": [(192, (1, 1)), (320, (3, 3), 2)],
    "branch7x7x3": [(192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2)],
    "max_pool": [],
}
_WIDE: _Branches = {  # figure 7: 1x3 beside 3x1, for 8x8 maps
    "branch1x1": [(320, (1, 1))],
    "branch3x3": [(384, (1, 1)), ((384, (1, 3)), (384, (3, 1)))],
    "branch3x3dbl": [(448, (1, 1)), (384, (3, 3)), ((384, (1, 3)), (384, (3, 1)))],
    "branch_pool": [(192, (1, 1))],
}
_MIXED: tuple[_Branches, ...] = (
    _with_5x5(32),
    _with_5x5(64),
    _with_5x5(64),
    _TO_17,
    _with_7x7(128),
    _with_7x7(160),
    _with_7x7(160),
    _with_7x7(192),
    _TO_8,
    _WIDE,
    _WIDE,
)
# features, side of the kernel, stride, whether the size stays; max-pooling 3x3/2 follows the third and the fifth
_STEM = ((32, 3, 2, False), (32, 3, 1, False), (64, 3, 1, True), (80, 1, 1, False), (192, 3, 1, False))
_POOLED = (3, 5)


def _names(branches: _Branches) -> dict[str, list[list[str]]]:
    """torchvision's names: `branch1x1`, or `branch5x5_1`, `branch5x5_2`; `_2a`, `_2b` of a pair."""
    return {
        branch: [
            [f"{branch}_{i}a", f"{branch}_{i}b"] if isinstance(conv[0], tuple) else [f"{branch}_{i}" if len(convs) > 1 else branch]
            for i, conv in enumerate(convs, start=1)
        ]
        for branch, convs in branches.items()
    }


class Mixed(nnx.Module):
    """Branches that read the same maps; their outputs are concatenated. `width` multiplies the widths of all of them."""

    def __init__(self, in_features: int, branches: _Branches, *, width: float, counts_padding: bool, conv: ConvBuilder, norm: NormBuilder):
        self.counts_padding = counts_padding
        self.branches = tuple((branch, tuple(map(tuple, steps))) for branch, steps in _names(branches).items())
        self.features = 0
        for branch, steps in self.branches:
            features = in_features
            for names, step in zip(steps, branches[branch], strict=True):
                convs = step if isinstance(step[0], tuple) else (step,)
                for name, (out, kernel, *stride) in zip(names, convs, strict=True):
                    strided = {"stride": stride[0], "padding": _VALID} if stride else {}
                    built = conv(features, round(out * width), kernel, **strided)
                    setattr(self, name, ConvNormReLU(built, norm(round(out * width))))
                features = sum(round(out * width) for out, *_ in convs)
            self.features += features

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        outputs = []
        for branch, steps in self.branches:
            if branch == "max_pool":
                outputs.append(layers.max_pool(x, 3, 2))
                continue
            y = [x]
            for names in steps:
                convs = [getattr(self, name) for name in names]
                if branch == "branch_pool":
                    y = [convs[0].after_average(x, self.counts_padding, train=train)]
                else:
                    y = [conv(y[0], train=train) for conv in convs]
            outputs += y
        return jnp.concatenate(outputs, axis=-1)


class InceptionV3(Backbone):
    """Five convolutions and eleven mixed blocks; images of at least 75x75.

    Args:
      width: multiplies all widths.
      mixed: the blocks.
      counts_padding: whether zeros over the edge count in average pooling, as in torch, or not, as in TensorFlow.
      use_scale: whether normalisation has a scale; that of TensorFlow has none, as the next convolution can do its work.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        mixed: tuple[_Branches, ...] = _MIXED,
        counts_padding: bool = True,
        use_scale: bool = True,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **norm: Unpack[layers.NormOptions],
    ):
        make_conv = functools.partial(layers.Conv, dtype=dtype, rngs=rngs)
        norm_options: layers.NormOptions = {"epsilon": 1e-3, **norm}
        make_norm = functools.partial(layers.BatchNorm, use_scale=use_scale, **norm_options, rngs=rngs)
        features = 3
        for i, (out, kernel, stride, stays) in enumerate(_STEM, start=1):
            conv = make_conv(features, round(out * width), kernel, stride=stride, padding=None if stays else _VALID)
            setattr(self, f"conv{i}", ConvNormReLU(conv, make_norm(round(out * width))))
            features = round(out * width)
        for i, branches in enumerate(mixed):
            block = Mixed(features, branches, width=width, counts_padding=counts_padding, conv=make_conv, norm=make_norm)
            setattr(self, f"mixed{i}", block)
            features = block.features
        self.mixed, self.features = len(mixed), features
        self.halvings = sum("max_pool" in branches for branches in mixed)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size, which are halved without padding; below 1 where they are too small."""

        def size(pixels: int) -> int:
            pixels = (pixels - 3) // 2 + 1 - 2
            pixels = (pixels - 3) // 2 + 1 - 2
            for _ in range(1 + self.halvings):
                pixels = (pixels - 3) // 2 + 1
            return pixels

        return size(height), size(width)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = image
        for i in range(1, len(_STEM) + 1):
            x = getattr(self, f"conv{i}")(x, train=train)
            x = layers.max_pool(x, 3, 2) if i in _POOLED else x
        for i in range(self.mixed):
            x = getattr(self, f"mixed{i}")(x, train=train)
        return x


def inception_v3(**options: Any) -> InceptionV3:
    return InceptionV3(**options)


def inception_v3_tiny(**options: Any) -> InceptionV3:
    """Three blocks, an eighth of the width: for tests."""
    return InceptionV3(width=1 / 8, mixed=(_with_5x5(32), _TO_17, _WIDE), **options)


MODELS = {
    "inception_v3": Model(inception_v3, 23_834_568),
    "inception_v3_tiny": Model(inception_v3_tiny),
}

_TORCH_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_TORCH_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def _torch_rules() -> tuple[Rule, ...]:
    rules: list[Rule] = []
    blocks = [(name, f"backbone/conv{i}") for i, name in enumerate(_TORCH_STEM, start=1)]
    blocks += [(rf"Mixed_{name}\.(\w+)", rf"backbone/mixed{i}/\1") for i, name in enumerate(_TORCH_MIXED)]
    for name, path in blocks:
        rules += [(rf"{name}\.conv\.weight", f"{path}/conv/kernel", conv), *batch_norm(rf"{name}\.bn", f"{path}/bn")]
    rules.append((r"AuxLogits\..*", None, same))  # a second head, which helps only in training from scratch
    return (*rules, (r"fc\.weight", "head/logits/kernel", linear), (r"fc\.bias", "head/logits/bias", same))


def _keras_rules() -> tuple[Rule, ...]:
    """Keras numbers its convolutions in the order in which they are made, which is torchvision's."""
    paths = [f"backbone/conv{i}" for i in range(1, len(_STEM) + 1)]
    for i, branches in enumerate(_MIXED):
        paths += [f"backbone/mixed{i}/{name}" for steps in _names(branches).values() for names in steps for name in names]
    rules: list[Rule] = []
    for i, path in enumerate(paths):
        suffix = f"_{i}" if i else ""
        rules += [
            (f"conv2d{suffix}/kernel", f"{path}/conv/kernel", same),
            (f"batch_normalization{suffix}/beta", f"{path}/bn/bias", same),
            (f"batch_normalization{suffix}/moving_mean", f"{path}/bn/mean", same),
            (f"batch_normalization{suffix}/moving_variance", f"{path}/bn/var", same),
        ]
    return (*rules, (r"predictions/(kernel|bias)", r"head/logits/\1", same))


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _torch_rules(), "torchvision": _torch_rules(), "keras": _keras_rules()}


_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
_GMACS = 5.73  # timm's benchmark tables


def _timm(tag: str, top1: float, **options: Any) -> Weights:
    name = f"timm/inception_v3.{tag}"
    defaults: dict[str, Any] = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "soft_labels": True}
    return Weights(
        name,
        "inception_v3",
        "timm",
        (299, 299),
        **(defaults | options),
        repo=name,
        top1=top1,
        gmacs=_GMACS,
        licence="apache-2.0",
        source=_RESULTS,
    )


_KERAS_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels.h5"
WEIGHTS: tuple[Weights, ...] = (
    _timm("tv_in1k", 77.472),
    _timm("tf_in1k", 77.866),
    _timm("tf_adv_in1k", 77.598),
    _timm("gluon_in1k", 78.806, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    Weights(
        "torchvision/inception_v3.v1",
        "inception_v3",
        "torchvision",
        (299, 299),
        crop_fraction=299 / 342,
        mean=HALF,  # after its `transform_input`, which undoes ImageNet's
        std=HALF,
        file="inception_v3_google-0cc3c7bd.safetensors",
        top1=77.294,
        soft_labels=True,
        gmacs=_GMACS,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    ),
    Weights(
        "keras/inception_v3",
        "inception_v3",
        "keras",
        (299, 299),
        mean=HALF,
        std=HALF,
        variant={"counts_padding": False, "use_scale": False, "momentum": 0.99, "unbiased": False},
        file=_KERAS_FILE,
        top1=77.9,  # https://keras.io/api/applications/
        soft_labels=True,  # section 7 of the paper
        gmacs=_GMACS,
        source=f"https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/{_KERAS_FILE}",
    ),
)
