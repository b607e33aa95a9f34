"""The elementwise part of augmentation, on the device: colour, erasing, MixUp and CutMix. What is random about an image comes with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.training import mixing

INPUTS = ("image", "label", "soft_label", "color", "erase", "erase_seed")  # of a batch, as far as it has them: what a training step reads


def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a batch that a training step reads."""
    return {name: batch[name] for name in INPUTS if name in batch}


def augmented(batch: Mapping[str, jax.Array], mean: Sequence[float], std: Sequence[float], mix: mixing.Mix | None = None) -> jax.Array:
    """Returns the images that the model sees, before they are normalised.

    Args:
      batch: `image` uint8 [B,H,W,3]; `color` float32 [B,3,4], a map of (red, green, blue, 1) on 0..255, clipped; `erase` int32 [B,n,4],
        boxes (top, left, bottom, right) filled with the mean colour, or, with `erase_seed` uint32 [B], with noise that is normal after
        normalisation. All but the image may be absent.
      mean, std: `config.data.mean` and `.std`, on 0..1.
      mix: how the batch is mixed with itself; None = it is not.

    Returns:
      float32 [B,H,W,3] on 0..255; noise may go beyond.
    """
    image = batch["image"].astype(jnp.float32)
    if "color" in batch:
        color = batch["color"][:, None, None]
        image = sum(image[..., channel : channel + 1] * color[..., channel] for channel in range(3)) + color[..., 3]
        image = jnp.clip(image, 0, 255)
    if "erase" in batch:
        fill = 255 * jnp.asarray(np.asarray(mean, np.float32))
        if "erase_seed" in batch:
            shape = image.shape[1:]
            noise = jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(batch["erase_seed"])
            fill = fill + 255 * np.asarray(std, np.float32) * noise
        _, height, width, _ = image.shape
        erased = mixing.inside(batch["erase"], (height, width)).any(axis=1)
        image = jnp.where(erased[..., None], fill, image)
    return image if mix is None else mixing.mix_images(image, mix)
