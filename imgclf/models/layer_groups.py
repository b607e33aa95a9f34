"""The layer groups of a backbone in the order of their computation, for freezing by stage and for learning rates that decay with depth.

A layer group is what such rules treat as one layer (fastai and timm call it so, too): a residual block, a block of VGG, or a convolution
with its normalisation.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.resnet import Stage

_SIZE = 256  # side of the traced image; large enough that every halving shows


@dataclasses.dataclass(frozen=True)
class LayerGroup:
    """Layers that freezing and layer-wise learning rates treat as one."""

    paths: tuple[str, ...]  # `backbone/stage1/0`; a normalisation that is no part of a block belongs to the group before it
    pixels: int  # height times width of its maps, or the number of its tokens, for images of 256x256
    is_transformer_block: bool = False  # a block of a stage that makes tokens, [B,N,D], of tokens


class _Watched:
    """Takes the place of a module while the backbone is traced, and passes each of its outputs to `note`."""

    def __init__(self, module: nnx.Module, note: Callable[[jax.Array], None]):
        self._module, self._note = module, note

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._watch(self._module)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:  # such as conv.max_pool_relu
        value = getattr(self._module, name)
        return self._watch(value) if callable(value) else value

    def _watch(self, function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def watched(*args: Any, **kwargs: Any) -> jax.Array:
            out = function(*args, **kwargs)
            self._note(out)
            return out

        return watched


def layer_groups(backbone: nnx.Module) -> tuple[LayerGroup, ...]:
    """Returns the layer groups of a backbone in the order of their computation: its children, and the children of each `Stage`.

    The order and the sizes come from a trace of the network itself; nothing is computed.
    """
    graphdef, state = nnx.split(backbone)
    called: dict[str, tuple[int, bool]] = {}
    norms: set[str] = set()

    def watch(parent: nnx.Module, name: str, path: str) -> None:
        module = getattr(parent, name)
        if isinstance(module, layers.BatchNorm | nnx.LayerNorm):
            norms.add(path)

        def note(maps: jax.Array) -> None:
            called[path] = math.prod(maps.shape[1:-1]), maps.ndim == 3 and isinstance(parent, Stage)

        vars(parent)[name] = _Watched(module, note)

    def trace(state: nnx.State, image: jax.Array) -> jax.Array:
        copy = nnx.merge(graphdef, state)
        for name in _children(copy):
            child = getattr(copy, name)
            if isinstance(child, Stage):
                for number in _children(child):
                    watch(child, number, f"backbone/{name}/{number}")
            else:
                watch(copy, name, f"backbone/{name}")
        return copy(image)

    jax.eval_shape(trace, state, jax.ShapeDtypeStruct((1, _SIZE, _SIZE, 3), jnp.float32))
    found: list[LayerGroup] = []
    for path, (pixels, is_transformer_block) in called.items():
        if path in norms and found:
            found[-1] = dataclasses.replace(found[-1], paths=(*found[-1].paths, path), pixels=pixels)
        else:
            found.append(LayerGroup((path,), pixels, is_transformer_block))
    return tuple(found)


def _children(module: nnx.Module) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, nnx.Module)]


def last_stage(backbone: nnx.Module) -> tuple[str, ...]:
    """Paths of a backbone's last stage: from the last layer group whose maps are smaller than those before it, to the end.

    This is stage4 of ResNet and ConvNeXt (there with its downsampling), block5 of VGG, the last transition, block and normalisation
    of DenseNet, blocks 13 to 16 and the last convolution of MobileNetV2, the exit flow of Xception, mixed8 to mixed10 of Inception.
    A Vision Transformer, which has as many tokens in its last block as in its first, is taken as four stages of the same number of blocks;
    its normalisation and pooling belong to the last. Another network that nowhere makes its maps smaller between layer groups is one stage.
    """
    groups = layer_groups(backbone)
    before = [_SIZE**2, *(group.pixels for group in groups)]
    blocks = [i for i, group in enumerate(groups) if group.is_transformer_block]
    if blocks:
        start = blocks[-max(1, len(blocks) // 4)]
    else:
        start = max((i for i, group in enumerate(groups) if group.pixels < before[i]), default=0)
    return tuple(path for group in groups[start:] for path in group.paths)


def depths(backbone: nnx.Module) -> dict[str, int]:
    """The distance of each layer group from the head, by path: 1 for the last group. The head itself is at 0."""
    groups = layer_groups(backbone)
    return {path: len(groups) - i for i, group in enumerate(groups) for path in group.paths}


def group_of(path: str, groups: Iterable[str]) -> str:
    """The one of these paths that a parameter's path lies under; "" where it lies under none."""
    return next((group for group in groups if path.startswith(group + "/")), "")
