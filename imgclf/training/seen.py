"""What training saw of an example, redrawn: the batch's view, the training step's part, and the partner it was mixed with."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.training import batch_augment, mixing


@dataclasses.dataclass(frozen=True)
class Partner:
    """What an image was mixed with.

    Attributes:
      row: of the table.
      epoch: the partner's own.
      share: of the image's own label; the rest is the partner's.
      box: top, left, bottom and right of what is the partner's in CutMix; None in MixUp.
      image: the partner by itself, like `Seen.image`.
    """

    row: int
    epoch: int
    share: float
    box: tuple[int, int, int, int] | None
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Seen:
    """One view of an example.

    Attributes:
      image: float32 [H, W, 3] on 0..255, before normalisation; noise may go beyond.
      epoch: how often training has shown the example before.
      step: counted from 0, in batches.
      place: in the global batch.
      partner: None where nothing is mixed.
    """

    image: np.ndarray
    epoch: int
    step: int
    place: int
    partner: Partner | None


def views(config: Config, dataset: Dataset, row: int, epochs: Sequence[int]) -> list[Seen]:
    """Redraws a training example as the training of `config` shows it, to the bit.

    Args:
      config: the whole config, resolved.
      dataset: as it is trained on: split, audited and limited as the config says.
      row: of its table, of the training split.
      epochs: of the example's own, see `pipeline.train_rows`.

    Raises:
      UserError: if an image can no longer be read.
    """
    parameters, size = mixing.parameters(config), tuple(config.data.image_size)
    places = [pipeline.train_place(dataset, config, row, epoch) for epoch in epochs]
    shown = [(row, epoch) for epoch in epochs]
    if parameters is not None:  # an image and its partner are a batch that is mixed as the whole one
        partners = []
        for step, place in places:
            rows, own_epochs = pipeline.train_rows(dataset, config, step)
            partners.append((int(rows[-1 - place]), int(own_epochs[-1 - place])))
        shown = [view for pair in zip(shown, partners, strict=True) for view in pair]
    config = config.copy_and_resolve_references()
    config.loader.eval_batch_size = len(shown) if parameters is None else 2
    config.loader.workers = 0
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    seen = []
    with pipeline.row_batches(dataset, config, *map(np.array, zip(*shown, strict=True))) as batches:
        for batch in batches:
            images = np.asarray(_augmented(batch_augment.inputs(batch), mean, std))
            if parameters is None:
                return [Seen(image, epoch, *place, None) for image, epoch, place in zip(images, epochs, places, strict=True)]
            epoch, place, partner = epochs[len(seen)], places[len(seen)], partners[len(seen)]
            mix = jax.device_get(_drawn(config.seed, place[0], parameters, size=size))
            mixed = None
            if mix.share < 1:
                box = tuple(mix.box.tolist()) if mix.box.any() else None
                mixed = Partner(*partner, float(mix.share), box, images[1])
                images = np.asarray(_augmented(batch_augment.inputs(batch), mean, std, mix))
            seen.append(Seen(images[0], epoch, *place, mixed))
    return seen


_augmented = jax.jit(batch_augment.augmented, static_argnums=(1, 2))


@functools.partial(jax.jit, static_argnames="size")
def _drawn(seed: jax.Array, step: jax.Array, parameters: dict[str, jax.Array], *, size: tuple[int, int]) -> mixing.Mix:
    return mixing.draw(mixing.step_key(jax.random.key(seed), step), size, parameters)
