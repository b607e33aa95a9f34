"""What a family of models exports: backbones, and the table of those that it builds."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
from flax import nnx


class Backbone(nnx.Module):
    """A network that maps images to feature maps; a head makes logits of those.

    A backbone holds `nnx.Param` and `nnx.BatchStat` only. Called with normalised images, float [B,H,W,3], it returns maps
    [B,h,w,features]; `train` says whether layers such as batch normalisation are to behave as in training.

    Where some of its parameters are found from the training images, it has a method `initialize_from`, which is given normalised ones,
    float32 [N,H,W,3], before the first step of a training from scratch, and changes the parameters in place; `initial_images` is the
    largest N that it has a use for.
    """

    features: int  # channels of the maps
    initial_images: int

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps for images of this size; below 1 where such images are too small.

        Raises:
          UserError: for a size that the network can't take, with one that it can.
        """
        raise NotImplementedError(f"{type(self).__name__}.map_size")

    def places(self, image: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """The last values that have a place in the image, [B,h,w,D], in evaluation, and the function that makes the maps of them.

        These are the maps themselves, but for a network that pools before its head. Explanations attribute an answer to them.
        """
        return self(image, train=False), lambda places: places

    if TYPE_CHECKING:  # nnx.Module has no signature for calls

        def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array: ...


Builder = Callable[..., Backbone]  # called with its own options, `dtype` (of activations) and `rngs` (nnx.Rngs)


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of a family."""

    build: Builder
    # Parameters with the published head, else with a linear head for 1,000 classes (cnn: by default). They are written down, as counting
    # can take seconds; a test counts them again. None: a small variant for tests, which is not listed.
    parameters: int | None = None
