"""Converts the tensors of published files into parameters and statistics, by a table for each family and layout of files.

A table is a tuple of rules (pattern, path, transform): the first rule whose pattern matches a tensor's whole name says where the
tensor goes, such as `backbone/stage1/0/conv1/kernel`, and how its axes are ordered there. A table names every tensor of a file; none is
skipped silently.
"""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]
# Pattern over the file's tensor name (re.fullmatch), path in params or batch_stats, transform. The path may use \1 and \g<name>, or be a
# function of the match; None drops the tensor.
Rule = tuple[str, str | Callable[[re.Match[str]], str] | None, Transform]
Tree = dict[str, Any]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, RGB on [0, 1]
HALF = (0.5, 0.5, 0.5)  # mean and std of x / 127.5 − 1, "inception" or "tf" preprocessing
CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # RGB, of Keras's "caffe" preprocessing; its std is 1 / 255
CAFFE_STD = (1 / 255,) * 3


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights of a model, with the options and the preprocessing that they were trained for."""

    name: str  # "timm/resnet50.a1_in1k": what config.model.weights takes
    model: str  # of imgclf.models.NAMES
    layout: str  # "timm" | "torchvision" | "keras": key of the family's CONVERSION
    input_size: tuple[int, int] = (224, 224)  # (height, width) of the published evaluation
    mean: tuple[float, float, float] = IMAGENET_MEAN  # per RGB channel on [0, 1]; subtracted, then divided by std
    std: tuple[float, float, float] = IMAGENET_STD
    variant: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the builder's options, such as {"padding": "same"}
    repo: str = ""  # on the Hugging Face hub; "" = not there, only as path:FILE
    file: str = "model.safetensors"
    num_classes: int = 1000
    top1: float | None = None  # published, percent
    licence: str = ""
    source: str = ""  # of top1, licence, or the weights
    crop_fraction: float = 0.875  # share of the shorter side that the centre crop of the published evaluation keeps
    interpolation: str = "bilinear"  # by which its images are resized: bilinear | bicubic
    linear_probe: float | None = None  # published ImageNet top-1 of a linear classifier on the frozen features, percent
    soft_labels: bool = False  # whether training is known to have smoothed or mixed labels, which makes worse fixed features
    gmacs: float | None = None  # published: billions of multiply-adds of one image of input_size, which papers call GFLOPs
    commercial: bool = True  # whether the licence allows commercial use


@dataclasses.dataclass(frozen=True, eq=False)
class Reordering:
    """A transform that moves numbers and changes none, and the one that moves them back, by which weights are exported."""

    there: Transform
    back: Transform

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.there(x)


def undone_by(back: Transform) -> Callable[[Transform], Reordering]:
    """Makes a transform a `Reordering`; `back` turns our array into the file's tensor again."""
    return lambda there: Reordering(there, back)


@undone_by(lambda x: x)
def same(x: np.ndarray) -> np.ndarray:
    """The tensor as it is: vectors, and kernels of the same layout."""
    return x


@undone_by(lambda x: x.transpose(3, 2, 0, 1))
def conv(x: np.ndarray) -> np.ndarray:
    """Torch convolution [out,in,kh,kw] to [kh,kw,in,out]; also depthwise, [C·m,1,kh,kw] to [kh,kw,1,C·m]."""
    return x.transpose(2, 3, 1, 0)


depthwise = conv


@undone_by(lambda x: x.reshape(*x.shape[:2], -1, 1))
def keras_depthwise(x: np.ndarray) -> np.ndarray:
    """Keras depthwise convolution [kh,kw,C,m] to [kh,kw,1,C·m]."""
    return x.reshape(*x.shape[:2], 1, -1)


@undone_by(lambda x: x.T)
def linear(x: np.ndarray) -> np.ndarray:
    """Torch linear layer [out,in] to [in,out]; also a 1x1 convolution [out,in,1,1] of pooled maps."""
    return x.reshape(x.shape[:2]).T


@undone_by(lambda x: x.T[:, :, None, None])
def pointwise(x: np.ndarray) -> np.ndarray:
    """Torch 1x1 convolution [out,in,1,1] of pooled maps to a dense layer [in,out]; also a linear layer [out,in]."""
    return x.reshape(x.shape[:2]).T


def linear_chw(height: int, width: int) -> Transform:
    """Torch linear layer of flattened [C,height,width] maps, or a convolution as large as the maps, to one of flattened [height,width,C].

    It goes back to the convolution, [out,C,height,width].
    """

    @undone_by(lambda x: x.reshape(height, width, -1, x.shape[1]).transpose(3, 2, 0, 1))
    def transform(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1, height, width).transpose(2, 3, 1, 0).reshape(-1, len(x))

    return transform


@undone_by(lambda x: x[:, :, ::-1])
def bgr(x: np.ndarray) -> np.ndarray:
    """The first kernel [kh,kw,3,out] of a network for BGR images, to one for RGB images."""
    return x[:, :, ::-1]


def batch_norm(layer: str, path: str) -> tuple[Rule, ...]:
    """Rules of a torch BatchNorm (also LayerNorm: `weight` and `bias`); `layer` is a pattern, `path` may use its groups."""
    return (
        (rf"{layer}\.weight", f"{path}/scale", same),
        (rf"{layer}\.bias", f"{path}/bias", same),
        (rf"{layer}\.running_mean", f"{path}/mean", same),
        (rf"{layer}\.running_var", f"{path}/var", same),
        (rf"{layer}\.num_batches_tracked", None, same),  # our momentum is constant
    )


def keras_batch_norm(layer: str, path: str) -> tuple[Rule, ...]:
    """Rules of a Keras BatchNormalization (also LayerNormalization)."""
    return (
        (rf"{layer}/gamma", f"{path}/scale", same),
        (rf"{layer}/beta", f"{path}/bias", same),
        (rf"{layer}/moving_mean", f"{path}/mean", same),
        (rf"{layer}/moving_variance", f"{path}/var", same),
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to `{"backbone/stem/conv/kernel": leaf}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {prefix + key: value})
    return flat


def nest(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *groups, name = path.split("/")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = leaf
    return tree


# The cache of `re` is smaller than some tables, whose patterns would be compiled anew for every tensor.
_compile = functools.cache(re.compile)


def match(name: str, rules: Sequence[Rule]) -> tuple[str | None, Transform] | None:
    """The path and transform of the first rule that matches; None where none does."""
    for pattern, path, transform in rules:
        found = _compile(pattern).fullmatch(name)
        if found:
            return (path(found) if callable(path) else None if path is None else found.expand(path)), transform
    return None


def convert(
    tensors: Mapping[str, np.ndarray],
    rules: Sequence[Rule],
    params_like: Tree,
    batch_stats_like: Tree,
    *,
    left_out: str = "",
) -> tuple[Tree, Tree]:
    """Converts the tensors of a file.

    Args:
      tensors: the file's, by name; floating point of any width.
      rules: of the family and the file's layout.
      params_like, batch_stats_like: the model's, nested dicts of anything with a `shape`.
      left_out: a prefix of paths, such as "head/": parameters under it are not converted, whether the file has them or not.

    Returns:
      params and batch_stats, nested dicts of float32 arrays, without what is left out.

    Raises:
      UserError: once for all tensors that are missing, unused, of the wrong shape, not floating point or not finite.
    """
    wanted = {path: leaf.shape for tree in (params_like, batch_stats_like) for path, leaf in flatten(tree).items()}
    skipped = (left_out,) if left_out else ()
    wanted = {path: shape for path, shape in wanted.items() if not path.startswith(skipped)}
    found: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    unused, bad = [], []
    for name, tensor in tensors.items():
        rule = match(name, rules)
        if rule is None:
            unused.append(name)
            continue
        path, transform = rule
        if path is None or path.startswith(skipped):
            continue
        if path not in wanted or path in found:
            unused.append(name)
            continue
        origin[path] = name
        found[path], problem = _checked(name, tensor, transform, wanted[path])
        if problem:
            bad.append(problem)
    missing = [path for path in wanted if path not in found]
    if missing or unused or bad:
        raise UserError(_complaint(missing, unused, bad))
    stats = flatten(batch_stats_like)
    return (
        nest({path: value for path, value in found.items() if path not in stats}),
        nest({path: value for path, value in found.items() if path in stats}),
    )


def _checked(name: str, tensor: np.ndarray, transform: Transform, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """The converted tensor, and what is wrong with it ("" = nothing)."""
    # bfloat16 is no numpy type: it comes from ml_dtypes, with kind V.
    if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
        return tensor, f"{name} is {tensor.dtype}, not floating point"
    try:
        value = np.ascontiguousarray(transform(tensor), np.float32)
    except (ValueError, IndexError):  # the tensor has another number of axes than the transform expects
        return tensor, f"{name} is {list(tensor.shape)}, which can't become {list(shape)}"
    if value.shape != tuple(shape):
        return value, f"{name} is {list(tensor.shape)}, that is {list(value.shape)} here, where the model has {list(shape)}"
    if not math.isfinite(float(value.sum(dtype=np.float64))):
        return value, f"{name} holds values that are not finite"
    return value, ""


def _complaint(missing: list[str], unused: list[str], bad: list[str]) -> str:
    parts = []
    if missing:
        parts.append(
            f"{len(missing)} of the model's tensors are missing ({_some([_with_near(path, unused) for path in missing[:3]], missing)})"
        )
    if unused:
        parts.append(f"{len(unused)} of the file's tensors have no place in the model ({_some(unused[:3], unused)})")
    if bad:
        parts.append(f"{len(bad)} don't fit ({_some(bad[:3], bad)})")
    return "; ".join(parts)


def _with_near(path: str, unused: list[str]) -> str:
    close = difflib.get_close_matches(path, unused, n=1, cutoff=0.4)
    return f"{path}, near {close[0]}" if close else path


def _some(shown: list[str], everything: list[str]) -> str:
    rest = len(everything) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")
