"""A run's kept model with the preprocessing that it was evaluated with: images in, calibrated probabilities out."""

import collections
import dataclasses
import functools
import hashlib
import json
import math
import os
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
import pandas as pd
from flax import nnx

from imgclf import config as config_lib
from imgclf import models
from imgclf.config import Config
from imgclf.data import augment, images
from imgclf.data.readers import ImageReader
from imgclf.errors import UserError
from imgclf.evaluation import calibration, metrics
from imgclf.evaluation.conformal import Conformal, sets
from imgclf.training import sharding
from imgclf.training.evaluate import EvalStep
from imgclf.training.state import Tree, path_name, split_model, tree_sha256
from imgclf.training.step import make_eval_step

Source = str | os.PathLike | np.ndarray

UNKNOWN = "unknown"  # the answer below the threshold
_DECODING, _COMPUTING = 2, 1  # batches under way beside the one that is waited for
_VERSION = 1  # of what a prediction says: part of `sha256`
# The fields of a run's config that its predictions may depend on; whole groups, so that no new field is forgotten.
_FIELDS = ("data.", "model.", "eval.flip", "augment.mode", "augment.fill")


class Answers(NamedTuple):
    """What the classifier says of a batch of images."""

    probabilities: np.ndarray  # float32 [n, C], calibrated; 0 where the image can't be read
    reasons: list[str]  # why an image can't be read; "" where it could


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained classifier: parameters, class names, its calibration, and the config that says how an image becomes its input."""

    config: Config
    class_names: tuple[str, ...]
    params: Tree
    batch_stats: Tree
    temperature: float = 1.0  # the logits are divided by it
    conformal: Conformal | None = None  # None: the run calibrated none
    reduced_decode: bool = False  # large JPEGs at 1/2, 1/4 or 1/8 of their size, no less than the input needs: quicker, not quite the same
    folder: Path | None = None  # of the run, or the saved model, that it was loaded from

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:10]) + (", …" if len(self.class_names) > 10 else "")
        return f"{self.config.model.name} for {len(self.class_names)} classes ({names}), from {self.folder}"

    def predict_probabilities(self, sources: Sequence[Source], *, batch_size: int = 64) -> np.ndarray:
        """Returns the calibrated probabilities, float32 [N, C], in the order of `sources` and of `class_names`.

        Raises:
          UserError: for a path that is no readable image; it is named.
        """
        outputs = [np.zeros((0, len(self.class_names)), np.float32)]
        done = 0
        for answers in self.stream(sources, batch_size=batch_size):
            for position, reason in enumerate(answers.reasons, start=done):
                if reason:
                    source = sources[position]
                    name = "an array" if isinstance(source, np.ndarray) else os.fspath(source)
                    raise UserError(f"{name} can't be classified: {reason}. Leave it out, or convert it to JPEG or PNG.")
            outputs.append(answers.probabilities)
            done += len(answers.reasons)
        return np.concatenate(outputs)

    def stream(self, sources: Sequence[Source], *, batch_size: int = 64, start: int = 0) -> Iterator[Answers]:
        """Classifies any number of images, in order, a few batches in memory at a time.

        Threads decode the next batches while the device computes. Images are decoded whole, as in evaluation, unless `reduced_decode`.

        Args:
          sources: as for `predict`. An item is taken in one of the threads, so that a sequence may read its images when asked; an
            `images.ImageError` or OSError raised then is the image's `reason`.
          batch_size: images per batch; the last one is padded, so that one compilation serves all. Fewer images make do with less.
          start: the number of sources to pass over.
        """
        batch_size = min(batch_size, 1 << max(0, len(sources) - 1).bit_length())
        batch_size = -(-batch_size // jax.device_count()) * jax.device_count()
        cv2.setNumThreads(0)  # parallel over images instead: OpenCV's own pool would have every thread compete for all cores
        decoding: collections.deque[tuple[np.ndarray, list[Future[str]]]] = collections.deque()
        computing: collections.deque[tuple[jax.Array, list[str]]] = collections.deque()
        pool = ThreadPoolExecutor(_cpus(), thread_name_prefix="decode")
        try:
            for first in range(start, len(sources), batch_size):
                image = np.zeros((batch_size, *self.config.data.image_size, 3), np.uint8)
                rows = range(first, min(first + batch_size, len(sources)))
                decoding.append((image, [pool.submit(self._show, sources, row, image[place]) for place, row in enumerate(rows)]))
                if len(decoding) > _DECODING:
                    computing.append(self._compute(*decoding.popleft()))
                if len(computing) > _COMPUTING:
                    yield self._answers(*computing.popleft())
            while decoding:
                computing.append(self._compute(*decoding.popleft()))
                if len(computing) > _COMPUTING:
                    yield self._answers(*computing.popleft())
            while computing:
                yield self._answers(*computing.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def table(
        self, ids: Sequence[str], answers: Answers, *, top_k: int = 5, threshold: float | None = None, conformal: bool = False
    ) -> pd.DataFrame:
        """Returns a row per image: `id`, `predicted`, `probability`, `top1`, `top1_probability`, … as in a run's predictions.csv, `reason`.

        Args:
          ids: what stands in `id`.
          answers: of the same images.
          top_k: how many classes to name; at most C are.
          threshold: adds `answer` after `probability`: the predicted class, or "unknown" where its probability is below the threshold.
          conformal: adds `set` before `reason`: the list of classes that the run's conformal threshold admits, the likeliest first.

        Raises:
          UserError: if sets are asked for and the run has calibrated none.
        """
        read = np.flatnonzero([not reason for reason in answers.reasons])
        probabilities = answers.probabilities[read]
        if not len(read):
            probabilities = np.full((1, len(self.class_names)), 1 / len(self.class_names), np.float32)  # for its columns
        table = metrics.predictions(range(len(probabilities)), probabilities, None, self.class_names, top_k).drop(columns="true")
        if threshold is not None:
            table.insert(3, "answer", table["predicted"].where(table["probability"] >= threshold, UNKNOWN))
        if conformal:
            table["set"] = self._sets(probabilities)
        table = table.iloc[: len(read)].set_index(read).reindex(range(len(ids)))
        return table.assign(id=list(ids), reason=answers.reasons)

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that its predictions depend on: two classifiers with one sha256 say the same of every image."""
        fields = {name: value for name, value in config_lib.flatten(self.config).items() if name.startswith(_FIELDS)}
        rule = dataclasses.asdict(self.conformal) if self.conformal else None
        parts = [tree_sha256([self.params, self.batch_stats]), self.class_names, self.temperature, rule, fields, _VERSION]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogateescape")).hexdigest()

    @functools.cached_property
    def scored(self) -> weakref.WeakKeyDictionary[ImageReader, np.ndarray]:
        """Probabilities of labeled images, as long as these live."""
        return weakref.WeakKeyDictionary()

    def need_conformal(self) -> Conformal:
        """The run's conformal rule.

        Raises:
          UserError: if it has none.
        """
        if self.conformal is None:
            raise UserError(
                "This run has no conformal threshold: it needs a val split and config.eval.conformal above 0; give its run.py command once "
                "more (a finished run is only evaluated again), with --config.eval.conformal=0.1."
            )
        return self.conformal

    def _sets(self, probabilities: np.ndarray) -> list[list[str]]:
        members = sets(probabilities, self.need_conformal().threshold)
        rows = []
        for row, member in zip(probabilities, members, strict=True):
            labels = np.flatnonzero(member)
            rows.append([self.class_names[label] for label in labels[np.argsort(-row[labels], kind="stable")]])
        return rows

    @functools.cached_property
    def _eval_step(self) -> EvalStep:
        abstract = nnx.eval_shape(lambda: models.create(self.config, len(self.class_names), load_weights=False))
        graphdef, params, batch_stats = split_model(abstract)
        expected, actual = {"params": params, "batch_stats": batch_stats}, {"params": self.params, "batch_stats": self.batch_stats}
        _check_shapes(expected, actual, len(self.class_names))
        return make_eval_step(self.config, graphdef, self._mesh)

    @functools.cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return sharding.create_mesh()

    @functools.cached_property
    def _on_devices(self) -> tuple[Tree, Tree]:
        return sharding.replicate((self.params, self.batch_stats), self._mesh)

    def _show(self, sources: Sequence[Source], row: int, out: np.ndarray) -> str:
        """Writes the model's view of an image to `out`; returns why it can't, else ""."""
        data = self.config.data
        try:
            source = sources[row]
            if isinstance(source, np.ndarray):
                pixels = images.pixels_of(source)
            else:
                least = tuple(math.ceil(side / data.crop_fraction) for side in data.image_size) if self.reduced_decode else None
                with open(source, "rb") as file:
                    pixels = images.decode(file.read(), min_size=least, decoding=images.Decoding(data.max_pixels))
        except images.ImageError as error:
            return str(error)
        except FileNotFoundError:
            return "missing: no such file"
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            return f"unreadable: {getattr(error, 'strerror', None) or error}"
        out[:] = augment.view(pixels, data.image_size, data.resize, self.config.augment, crop_fraction=data.crop_fraction)
        return ""

    def _compute(self, image: np.ndarray, shown: list[Future[str]]) -> tuple[jax.Array, list[str]]:
        reasons = [future.result() for future in shown]
        index = np.arange(len(image))
        batch = {"image": image, "label": np.zeros(len(image), np.int32), "index": index, "mask": index < len(reasons)}
        return self._eval_step(*self._on_devices, sharding.put_batch(batch, self._mesh))["logits"], reasons

    def _answers(self, logits: jax.Array, reasons: list[str]) -> Answers:
        probabilities = calibration.probabilities(np.asarray(logits)[: len(reasons)], self.temperature)
        probabilities[[bool(reason) for reason in reasons]] = 0
        return Answers(probabilities, reasons)


def _check_shapes(expected: Tree, actual: Tree, classes: int) -> None:
    """Raises a UserError unless the parameters are those of the config's model."""
    shapes = [
        {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (expected, actual)
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        wanted, there = (one.get(name, "nothing") for one in shapes)
        if wanted != there:
            raise UserError(
                f"The kept model does not fit the run's config.json and {classes} classes: {name} is {there}, not {wanted}; restore the "
                "run from a copy, or train again."
            )


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
