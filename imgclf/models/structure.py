"""What a backbone is made of, in the order of its computation: for stages, for depths, and for Keras's counting of layers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import layers
from imgclf.models.resnet import Stage

_SIZE = 256  # of the traced image; large enough that every halving shows


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of a backbone that is computed at a time: a residual block, a block of VGG, a convolution with its normalisation."""

    paths: tuple[str, ...]  # `backbone/stage1/0`; a normalisation that stands by itself belongs to what is before it
    pixels: int  # of its maps, height times width, for images of 256x256


class _Watched:
    """Stands in for a unit while the backbone is traced, and tells `note` of each of its outputs."""

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


def units(backbone: nnx.Module) -> tuple[Unit, ...]:
    """The units of a backbone in the order in which an image meets them: its direct children, and those of a row of blocks.

    The order and the sizes come from a trace of the network itself; nothing is computed.
    """
    graphdef, state = nnx.split(backbone)
    called: dict[str, int] = {}
    norms: set[str] = set()

    def watch(parent: nnx.Module, name: str, path: str) -> None:
        module = getattr(parent, name)
        if isinstance(module, layers.BatchNorm | nnx.LayerNorm):
            norms.add(path)

        def note(maps: jax.Array) -> None:
            called[path] = maps.shape[1] * maps.shape[2]

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
    found: list[Unit] = []
    for path, pixels in called.items():
        if path in norms and found:
            found[-1] = Unit((*found[-1].paths, path), pixels)
        else:
            found.append(Unit((path,), pixels))
    return tuple(found)


def _children(module: nnx.Module) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, nnx.Module)]


def last_stage(backbone: nnx.Module) -> tuple[str, ...]:
    """Paths of a backbone's last stage: from the last unit whose maps are smaller than those before it, to the end.

    That is stage4 of ResNet and ConvNeXt (there with its downsampling), block5 of VGG, the last transition, block and normalisation
    of DenseNet, blocks 13 to 16 and the last convolution of MobileNetV2, the exit flow of Xception, mixed8 to mixed10 of Inception.
    A network that nowhere halves its maps between units is one stage.
    """
    found = units(backbone)
    before = [_SIZE**2, *(unit.pixels for unit in found)]
    start = max((i for i, unit in enumerate(found) if unit.pixels < before[i]), default=0)
    return tuple(path for unit in found[start:] for path in unit.paths)


def depths(backbone: nnx.Module) -> dict[str, int]:
    """How far each unit of a backbone is from the head: 1 for the last one, by path. The head itself is at 0."""
    found = units(backbone)
    return {path: len(found) - i for i, unit in enumerate(found) for path in unit.paths}


def within(path: str, units: tuple[str, ...] | dict[str, int]) -> str:
    """The unit that a parameter's path lies in; "" where it lies in none."""
    return next((unit for unit in units if path.startswith(unit + "/")), "")
