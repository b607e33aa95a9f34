"""Batches by grain: the stream is a pure function of (seed, step), whatever the number of threads, workers or hosts.

The stream is grain's `shuffle → repeat → map → batch → shard` on a MapDataset, written per batch: grain maps the step to
a whole batch, in threads or in worker processes. So a record costs none of grain's 12 µs, and none of the 90 µs that its shuffle takes
at 300 examples (it walks cycles of 2**16).
"""

import contextlib
import dataclasses
import functools
import math
import sys
import threading
import types
import weakref
from collections.abc import Iterator

import cv2
import grain  # type: ignore[import-untyped]  # grain ships no types
import numpy as np
from absl import flags

from imgclf.config import Config
from imgclf.config.fields import LoaderConfig
from imgclf.data import augment, decoded, main_guard, sampling, worker_start
from imgclf.data.fetching import Batch, Fetch, VectorFetch
from imgclf.data.orders import EvalOrder, ListedOrder, Order, TrainOrder
from imgclf.data.readers import ImageReader, kept_sizes
from imgclf.data.table import Dataset
from imgclf.errors import UserError


def steps_per_epoch(dataset: Dataset, config: Config) -> float:
    """Returns training examples / global batch size; not rounded, as batches run across epochs.

    Raises:
      UserError: if no row is in the training split.
    """
    return len(_rows(dataset, "train")) / config.loader.batch_size


def train_batches(
    dataset: Dataset,
    config: Config,
    *,
    start_step: int = 0,
    num_steps: int | None = None,
    own: np.ndarray | None = None,
) -> "Batches":
    """Streams this process's rows of the global training batches `start_step`, `start_step + 1`, …

    Every epoch is a new permutation of the training rows, or has them as often as `loader.sampling` says, and batches run across epochs.
    Which example stands at a place of the global batch doesn't depend on `own`, so that it is the same array for any number of hosts.

    Args:
      dataset: rows with split "train" are used.
      config: the whole config: data.*, augment.*, loader.*, seed.
      start_step: how many batches were taken before; the rest of the stream is the same as without stopping.
      num_steps: how many batches to give from there; None = endlessly.
      own: int64 [b], the places of a global batch whose rows this process supplies (`training.sharding.own_places`); None = all.

    Returns:
      An iterator and context manager of batches of b rows, by default loader.batch_size.

    Raises:
      UserError: if there is nothing to train on; while iterating, if an image can no longer be read.
    """
    order = _train_order(dataset, config, own)
    stop = sys.maxsize if num_steps is None else start_step + num_steps
    return _batches(dataset, config, order, start_step, stop, augmented=True)


def train_rows(dataset: Dataset, config: Config, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which rows of the table, in which epochs of theirs, the global training batch of a step shows: int64 [B] each.

    An example's epoch counts how often training has shown it before; it is that of the stream with `loader.sampling="natural"`.
    """
    return _train_order(dataset, config)(step)


def train_place(dataset: Dataset, config: Config, row: int, epoch: int) -> tuple[int, int]:
    """Returns the step whose batch shows a training row in this epoch of its own, and the place in that (global) batch."""
    order = _train_order(dataset, config)
    place = order.sampler.place(int(np.searchsorted(order.rows, row)), epoch)
    return divmod(place, config.loader.batch_size)


def eval_batches(dataset: Dataset, config: Config, split: str, *, own: np.ndarray | None = None) -> "Batches":
    """Streams every example of a split exactly once, as `augment.Preprocessing.shown` has it.

    Global batches follow the table's order; the last one is padded with black images, label 0, index -1 and mask False. All processes
    yield the same number of batches.

    Args:
      dataset: its rows with this split are used.
      config: the whole config: data.*, augment.fill, loader.*.
      split: "train", "val" or "test".
      own: int64 [b], the places of a global batch whose rows this process supplies (`training.sharding.own_places`); None = all.

    Returns:
      An iterator and context manager of batches of b rows, by default loader.eval_batch_size.

    Raises:
      UserError: if the split is empty; while iterating, if an image can no longer be read.
    """
    rows, size = _rows(dataset, split), config.loader.eval_batch_size
    order = EvalOrder(rows, size, np.arange(size) if own is None else own)
    return _batches(dataset, config, order, 0, math.ceil(len(rows) / size), augmented=False, in_all_views=True)


def row_batches(
    dataset: Dataset, config: Config, rows: np.ndarray, epochs: np.ndarray | None = None, *, in_all_views: bool = False
) -> "Batches":
    """Streams these rows in this order, whatever their split; a row may come more than once. The last batch is padded as in `eval_batches`.

    Args:
      dataset: the images.
      config: the whole config: data.*, augment.*, loader.*, seed.
      rows: int64 [N] of the data set's table.
      epochs: int64 [N]: each as training shows it in that epoch; None = as evaluation does.
      in_all_views: whether evaluation's views are all of `config.eval.views`; False = the plain one alone.

    Returns:
      An iterator and context manager of batches of loader.eval_batch_size rows.

    Raises:
      UserError: while iterating, if an image can no longer be read.
    """
    size = config.loader.eval_batch_size
    order = ListedOrder(np.asarray(rows, np.int64), np.zeros(len(rows), np.int64) if epochs is None else np.asarray(epochs, np.int64), size)
    return _batches(dataset, config, order, 0, math.ceil(len(rows) / size), augmented=epochs is not None, in_all_views=in_all_views)


@dataclasses.dataclass(frozen=True)
class VectorDataset(Dataset):
    """A data set whose images are known by vectors: its batches' `image` is float32 [B, 1, 1, D]. Not for worker processes.

    Attributes:
      vectors: float32 [N, V, D], by row of the table. Evaluation shows view 0, training view `epoch mod V`.
    """

    vectors: np.ndarray


class Batches(contextlib.AbstractContextManager):
    """An iterator of batches; `close` (or leaving the `with`) ends its threads and processes, and waits until they are gone."""

    def __init__(self, fetch: "Fetch | VectorFetch", start: int, stop: int, loader: LoaderConfig):
        steps = grain.MapDataset.range(start, stop)
        threads: set[threading.Thread] = set()
        cv2.setNumThreads(0)  # parallel over batches instead: OpenCV's own pool would have every thread compete for all cores
        # Else grain appends a remark to our error messages. As a default, since grain reads its settings anew for each element, which takes
        # a fifth of a loader's time once absl's flags count as parsed.
        flags.FLAGS.set_default("grain_py_traceback_filtering", "off")
        main_guard.leave_workers()
        self._in_processes = loader.workers > 0
        if self._in_processes:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain hands its flags to the workers, also where no absl app has parsed any
            options = grain.MultiprocessingOptions(num_workers=loader.workers, per_worker_buffer_size=max(1, loader.prefetch))
            in_worker = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
            source = steps.map(fetch).to_iter_dataset(in_worker).mp_prefetch(options, worker_init_fn=_start_worker)
        else:
            ahead = max(loader.threads, loader.prefetch) if loader.threads else 0
            options = grain.ReadOptions(num_threads=loader.threads, prefetch_buffer_size=ahead)
            source = steps.map(functools.partial(_fetch_in_thread, threads, fetch)).to_iter_dataset(options)
        # Ended and freed when the stream is dropped too, and at exit, before the modules that grain needs to clean up are torn down.
        self._iterators = [iter(source)]
        self._finalizer = weakref.finalize(self, _end, self._iterators, threads)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._iterators:
            raise StopIteration
        try:
            batch = next(self._iterators[0])
        except RuntimeError as error:
            if (told := main_guard.explained(error)) is not None:
                raise told from None
            raise
        if self._in_processes:  # out of shared memory, whose arrays must not outlive the interpreter's modules
            batch = {key: np.array(value) for key, value in batch.items()}
        return batch

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the stream; waits for the batches being made."""
        self._finalizer()


def _batches(
    dataset: Dataset, config: Config, order: Order, start: int, stop: int, *, augmented: bool, in_all_views: bool = False
) -> Batches:
    table, data = dataset.table, config.data
    if isinstance(dataset, VectorDataset):
        vectors = VectorFetch(order, table["label"].to_numpy(np.int32), dataset.vectors)
        return Batches(vectors, start, stop, config.loader)
    sizes, kept = table[["height", "width"]].to_numpy(np.int32), kept_sizes(dataset.reader)
    kept = sizes if kept is None else kept
    verified = dataset.unverified is None
    fields = types.SimpleNamespace(**config.augment.to_dict())
    shown = augment.Preprocessing.of(config)
    if augmented and config.augment.image_size:
        height, width = config.augment.image_size
        shown = dataclasses.replace(shown, size=(height, width))
    fetch = Fetch(
        order=order,
        reader=dataset.reader,
        ids=table["id"].array,
        labels=table["label"].to_numpy(np.int32),
        sizes=sizes,
        kept=kept,
        shown=shown if in_all_views and not augmented else dataclasses.replace(shown, views="plain"),
        fields=fields,
        seed=config.seed,
        augmented=augmented and not augment.is_neutral(fields),
        verified=verified,
        decoded=_decoded(dataset.reader, kept, shown.size, data.in_memory_mb * 2**20) if verified and not config.loader.workers else None,
    )
    return Batches(fetch.for_workers() if config.loader.workers else fetch, start, stop, config.loader)


def _decoded(reader: ImageReader, sizes: np.ndarray, shown: tuple[int, int], most: int) -> decoded.DecodedImages | None:
    """Where images are kept; None if even at the scale of an unzoomed view they don't fit: then the few that do would hardly help."""
    if decoded.bytes_when_shrunk(sizes, shown) > most:
        return None
    kept = decoded.of_reader(reader)
    kept.most = most
    return kept


def _train_order(dataset: Dataset, config: Config, own: np.ndarray | None = None) -> TrainOrder:
    rows, size = _rows(dataset, "train"), config.loader.batch_size
    sampler = sampling.Sampler(config.seed, dataset.table["label"].to_numpy(np.int64)[rows], config.loader.sampling)
    return TrainOrder(rows, sampler, size, np.arange(size) if own is None else own)


def _rows(dataset: Dataset, split: str) -> np.ndarray:
    rows = np.flatnonzero((dataset.table["split"] == split).to_numpy(bool))
    if not len(rows):
        raise UserError(f"the {split} split has no images: give it some, by the data's own split or by data.split.fractions.")
    return rows


def _fetch_in_thread(threads: set[threading.Thread], fetch: Fetch | VectorFetch, step: int) -> Batch:
    if (thread := threading.current_thread()) is not threading.main_thread():
        threads.add(thread)
    return fetch(step)


def _end(iterators: list[grain.DatasetIterator], threads: set[threading.Thread]) -> None:
    iterators.pop().close()
    for thread in threads - {threading.current_thread()}:
        thread.join()


def _start_worker(index: int, count: int) -> None:
    del index, count
    worker_start.start()
