"""What training saw of an example, redrawn: the batch's view, the training step's part, and the partner it was mixed with."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

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
    config = config.copy_and_resolve_references()
    config.loader.workers = 0
    parameters = mixing.parameters(config)
    if parameters is None:
        return _alone(config, dataset, row, epochs)
    return [_mixed(config, dataset, row, epoch, parameters) for epoch in epochs]


def _alone(config: Config, dataset: Dataset, row: int, epochs: Sequence[int]) -> list[Seen]:
    config.loader.eval_batch_size = len(epochs)
    with pipeline.row_batches(dataset, config, np.full(len(epochs), row), np.array(epochs)) as batches:
        batch = next(iter(batches))
    images = np.asarray(_augmented(batch_augment.inputs(batch), tuple(config.data.mean), tuple(config.data.std)))
    places = [pipeline.train_place(dataset, config, row, epoch) for epoch in epochs]
    return [Seen(image, epoch, step, place, None) for image, epoch, (step, place) in zip(images, epochs, places, strict=True)]


def _mixed(config: Config, dataset: Dataset, row: int, epoch: int, parameters: Mapping[str, np.float32]) -> Seen:
    """An image and its partner are a batch that is mixed as the whole one."""
    step, place = pipeline.train_place(dataset, config, row, epoch)
    rows, own_epochs = pipeline.train_rows(dataset, config, step)
    partner_row, partner_epoch = int(rows[-1 - place]), int(own_epochs[-1 - place])
    config.loader.eval_batch_size = 2
    with pipeline.row_batches(dataset, config, np.array([row, partner_row]), np.array([epoch, partner_epoch])) as batches:
        batch = batch_augment.inputs(next(iter(batches)))
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    height, width = config.augment.image_size or config.data.image_size
    image, partner_image = np.asarray(_augmented(batch, mean, std))
    mix = jax.device_get(_drawn(config.seed, step, parameters, size=(height, width)))
    if mix.share >= 1:
        return Seen(image, epoch, step, place, None)
    box = tuple(mix.box.tolist()) if mix.box.any() else None
    partner = Partner(partner_row, partner_epoch, float(mix.share), box, partner_image)
    return Seen(np.asarray(_augmented(batch, mean, std, mix))[0], epoch, step, place, partner)


_augmented = jax.jit(batch_augment.augmented, static_argnums=(1, 2))


@functools.partial(jax.jit, static_argnames="size")
def _drawn(seed: jax.Array, step: jax.Array, parameters: Mapping[str, jax.Array], *, size: tuple[int, int]) -> mixing.Mix:
    return mixing.draw(mixing.step_key(jax.random.key(seed), step), size, parameters)
