"""What makes one batch: rows and epochs by an order, each image read, decoded and shown, in a thread or a worker process."""

import dataclasses
import itertools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from imgclf.data import augment, readers
from imgclf.data.columns import Texts, shared
from imgclf.data.decoded import DecodedImages
from imgclf.data.images import ImageError
from imgclf.data.orders import Order, TrainOrder
from imgclf.data.readers import ImageReader
from imgclf.errors import UserError

_DAMAGED = 1_000  # images in a row that can't be read: such a data set is not trained on

# image uint8 [B, H, W, 3], or [B, V, H, W, 3] where evaluation shows several views of each; label int32 [B]; index int64 [B], row of the
# table; mask bool [B]. Augmented batches also have what the training step does to each image, as far as the config wants it: color float32
# [B, 3, 4]; erase int32 [B, n, 4]; erase_seed uint32 [B].
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(repr=False, eq=False)  # grain prints what it maps
class Fetch:
    """Makes the batch of a step; pickled to the workers."""

    order: Order
    reader: ImageReader
    ids: Any  # array of str
    labels: np.ndarray
    sizes: np.ndarray  # int32 [n, 2]: (height, width) of each photo, by which its views are drawn
    kept: np.ndarray  # likewise, of what the reader has of it, which is smaller in some packs
    shown: augment.Preprocessing
    fields: types.SimpleNamespace  # config.augment; a ConfigDict takes microseconds per attribute
    seed: int
    augmented: bool
    verified: bool  # else sizes are not known, and an image may turn out to be damaged
    decoded: DecodedImages | None  # None = the images do not fit in memory

    def __call__(self, step: int) -> Batch:
        rows, epochs = self.order(step)
        mask = rows >= 0
        image = np.zeros((len(rows), *self.shown.shape), np.uint8)
        label = np.where(mask, self.labels[rows], 0).astype(np.int32)
        batch: Batch = {"image": image, "label": label, "index": rows, "mask": mask}
        if self.augmented:
            batch |= self._nothing(len(rows))
        with readers.ahead(self.reader, [row for row in rows.tolist() if row >= 0 and not (self.decoded and self.decoded.has_any(row))]):
            for i, (row, epoch) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True)):
                if row < 0:
                    continue
                if self.verified:
                    self._fill(batch, i, row, epoch)
                else:
                    self._fill_readable(batch, i, row, epoch)
        return batch

    def for_workers(self) -> "Fetch":
        """The same, with a large table in files that worker processes map instead of getting copies."""
        return dataclasses.replace(
            self,
            order=self.order.shared()
            if isinstance(self.order, TrainOrder)
            else dataclasses.replace(self.order, rows=shared(self.order.rows)),
            reader=readers.for_workers(self.reader),
            ids=Texts.of(self.ids).shared(),
            labels=shared(self.labels),
            sizes=shared(self.sizes),
            kept=shared(self.kept),
        )

    def _fill(self, batch: Batch, i: int, row: int, epoch: int) -> None:
        """Puts an image into place `i` of a batch.

        Raises:
          UserError: if it has changed since it was verified, or listed.
          ImageError: if it is damaged, and was not verified.
        """
        image, source = batch["image"], self._source(row)
        if not self.augmented:  # from whole images, so that evaluation shows what `Preprocessing.shown` has of an array
            image[i] = self.shown.shown(source.pixels(1))
            return
        image[i], drawn = self._view(row, epoch, source)
        if drawn.color is not None:
            batch["color"][i] = augment.color.matrix(drawn.color, image[i])
        if drawn.erase is not None:
            batch["erase"][i] = augment.erase.boxes(drawn.erase, self.fields, self.shown.size)
            if "erase_seed" in batch:
                batch["erase_seed"][i] = drawn.erase.seed

    def _fill_readable(self, batch: Batch, i: int, row: int, epoch: int) -> None:
        """Puts an image that nobody has verified into place `i` of a batch; what stands there depends on the files' bytes alone.

        In training, the next row that can be read takes the place of one that can't, with its own label: a black image would be part of
        BatchNorm's statistics. In evaluation the place is masked.
        """
        following = itertools.islice(self.order.after(row), _DAMAGED - 1) if isinstance(self.order, TrainOrder) else ()
        for taken in itertools.chain([row], following):
            try:
                self._fill(batch, i, taken, epoch)
            except ImageError:
                continue
            batch["index"][i], batch["label"][i] = taken, self.labels[taken]
            return
        if isinstance(self.order, TrainOrder):
            raise UserError(
                f"None of {_DAMAGED:,} images from {self.ids[row]} on can be read: look at the data; config.data.verify='first' lists all "
                "that are damaged before training begins."
            )
        batch["image"][i], batch["index"][i], batch["label"][i], batch["mask"][i] = 0, -1, 0, False

    def _nothing(self, count: int) -> Batch:
        """The arrays for the training step, as they are for images to which it does nothing."""
        arrays = {}
        if augment.color.is_on(self.fields):
            arrays["color"] = np.tile(augment.color.IDENTITY, (count, 1, 1))
        if boxes := augment.erase.boxes_per_image(self.fields):
            arrays["erase"] = np.zeros((count, boxes, 4), np.int32)
            if self.fields.erase_fill == "noise":
                arrays["erase_seed"] = np.zeros(count, np.uint32)
        return arrays

    def _view(self, row: int, epoch: int, source: "_Source") -> tuple[np.ndarray, augment.Draw]:
        drawn = augment.draw(augment.view_rng(self.seed, self.ids[row], epoch), self.fields)
        factor = augment.reduction(drawn, source.size, self.shown.size, self.shown.resize, self.shown.crop_fraction)
        return self.shown.render(source.pixels(factor), drawn, source.size), drawn

    def _source(self, row: int) -> "_Source":
        if self.verified:
            height, width = self.sizes[row].tolist()
            return _Source((height, width), lambda factor: self._image(row, factor, (height, width)))
        stored = readers.stored(self.reader, row)
        height, width = stored.size()
        return _Source((height, width), lambda factor: stored.pixels(_reduced((height, width), factor)))

    def _image(self, row: int, factor: int, full_size: tuple[int, int]) -> np.ndarray:
        if self.decoded is not None and (kept := self.decoded.get(row, factor)) is not None:
            return kept
        largest = self.kept[row].tolist()
        needed = max(1, min(full_size[0] // factor, largest[0])), max(1, min(full_size[1] // factor, largest[1]))
        advice = "restore the file, or start again so that the images are verified anew."
        try:
            image = self.reader[row] if factor == 1 else self.reader.read(row, needed)
        except (OSError, ImageError) as error:
            raise UserError(f"{self.ids[row]} can no longer be read ({type(error).__name__}: {error}): {advice}") from error
        height, width = image.shape[:2]
        if not (needed[0] <= height <= largest[0] and needed[1] <= width <= largest[1]):
            raise UserError(f"{self.ids[row]} is {height}x{width} pixels now, but was {largest[0]}x{largest[1]}: {advice}")
        if self.decoded is not None:
            if [height, width] == largest:  # not every format decodes at a reduced scale
                image = self.decoded.add(row, 1, image)
            self.decoded.add(row, factor, image)
        return image


class _Source(NamedTuple):
    """An image that is about to be decoded."""

    size: tuple[int, int]  # height and width
    pixels: Callable[[int], np.ndarray]  # at 1 / this of the size, or larger


def _reduced(size: tuple[int, int], factor: int) -> tuple[int, int] | None:
    """The least size (height, width) at which an image is to be decoded; None = its own."""
    return None if factor == 1 else (max(1, size[0] // factor), max(1, size[1] // factor))


@dataclasses.dataclass(repr=False, eq=False)  # grain prints what it maps
class VectorFetch:
    """Makes the batch of a step of a `VectorDataset`."""

    order: Order
    labels: np.ndarray
    vectors: np.ndarray

    def __call__(self, step: int) -> Batch:
        rows, epochs = self.order(step)
        mask = rows >= 0
        image = np.where(mask[:, None], self.vectors[rows, epochs % self.vectors.shape[1]], 0)
        label = np.where(mask, self.labels[rows], 0).astype(np.int32)
        return {"image": image[:, None, None], "label": label, "index": rows, "mask": mask}
