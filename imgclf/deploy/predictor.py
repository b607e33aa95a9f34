"""A run's kept model with the preprocessing that it was evaluated with: images in, calibrated probabilities out."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import weakref
from collections.abc import Generator, Sequence
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
from imgclf.data import augment, images, native_messages
from imgclf.data.readers import ImageReader
from imgclf.deploy import items
from imgclf.deploy.items import Items, NamedItems, Shown
from imgclf.deploy.options import OnError, Options, check_on_error
from imgclf.errors import UserError
from imgclf.evaluation import calibration, metrics
from imgclf.evaluation.conformal import Conformal, sets
from imgclf.evaluation.open_set import OpenSet
from imgclf.explanation.explained import Explained
from imgclf.remote import places
from imgclf.runtime import kept_programs, processor
from imgclf.training import sharding
from imgclf.training.state import Tree, path_name, split_model, tree_sha256
from imgclf.training.step import EvalStep, make_eval_step

UNKNOWN = "unknown"  # the answer below the threshold
_DECODING, _COMPUTING = 2, 1  # batches under way beside the one that is waited for
_VERSION = 1  # of what a prediction says: part of `sha256`
# The fields of a run's config that its predictions may depend on; whole groups, so that no new field is forgotten.
_FIELDS = ("data.", "model.", "eval.views", "augment.mode", "augment.fill")


class Answers(NamedTuple):
    """What the classifier says of a batch of images."""

    probabilities: np.ndarray  # float32 [n, C], calibrated; 0 where the image can't be read
    reasons: list[str]  # why an image can't be read; "" where it could
    none_of_these: np.ndarray | None = None  # float32 [n], p-values, see `evaluation.open_set`; None: the run has kept no features


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained classifier: parameters, class names, its calibration, and the config that says how an image becomes its input."""

    config: Config
    class_names: tuple[str, ...]
    params: Tree
    batch_stats: Tree
    temperature: float = 1.0  # the logits are divided by it
    logit_offset: tuple[
        float, ...
    ] = ()  # what is added to the classes' logits before that, see `config.eval.logit_adjustment`; () = nothing
    conformal: Conformal | None = None  # None: the run calibrated none
    reduced_decode: bool = False  # large JPEGs at 1/2, 1/4 or 1/8 of their size, no less than the input needs: quicker, not quite the same
    open_set: OpenSet | None = None  # None: the run has kept no features
    folder: Path | None = None  # of the run, or the saved model, that it was loaded from

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:10]) + (", …" if len(self.class_names) > 10 else "")
        return f"{self.config.model.name} for {len(self.class_names)} classes ({names}), from {self.folder}"

    def predict_probabilities(
        self,
        sources: object,
        *,
        batch_size: int = 64,
        on_error: OnError = "raise",
        column: str = "",
        root: str | os.PathLike[str] = "",
    ) -> np.ndarray:
        """Returns the calibrated probability of each class for each image.

            probabilities = classifier.predict_probabilities(["a.jpg", "b.png"])
            classifier.class_names[probabilities[0].argmax()]

        Args:
          sources: see `Classifier.predict`; images are counted by position.
          batch_size: images per forward pass.
          on_error: "raise" ends the call at an image that can't be read; "row" leaves NaN in its row.
          column, root: see `Classifier.predict`.

        Returns:
          float32 [N, C], in the order of `sources` and of `class_names`.

        Raises:
          UserError: for what holds no images; and for an image that can't be read, which is named, unless on_error="row".
        """
        taken = items.take(sources, self.config.data, column=column, root=root)
        answers = self.answers(taken, Options(batch_size=batch_size), check_on_error(on_error))
        answers.probabilities[[bool(reason) for reason in answers.reasons]] = np.nan
        return answers.probabilities

    def answers(self, sources: NamedItems, options: Options, on_error: OnError) -> Answers:
        """Classifies images whose answers fit in memory.

        Raises:
          UserError: for an image that can't be read, unless on_error="row"; it is named.
        """
        parts = [self.no_answers]
        quiet = native_messages.held_back()  # what is wrong with an image is its reason
        with quiet, contextlib.closing(self.stream(sources, batch_size=options.batch_size)) as stream:
            for answers in stream:
                for row, reason in enumerate(answers.reasons, start=sum(len(part.reasons) for part in parts)):
                    if reason and on_error == "raise":
                        raise UserError(_refusal(sources, row, reason))
                parts.append(answers)
        return joined(parts)

    @property
    def no_answers(self) -> Answers:
        """Those of no image."""
        none = None if self.open_set is None else np.zeros(0, np.float32)
        return Answers(np.zeros((0, len(self.class_names)), np.float32), [], none)

    def stream(self, sources: Items, *, batch_size: int = 64, start: int = 0) -> Generator[Answers, None, None]:
        """Classifies any number of images, in order, with a few batches in memory at a time.

        Threads decode the next batches while the device computes. Images are decoded whole, as in evaluation, unless `reduced_decode`.

        Args:
          sources: the images. A row is asked for in one of the threads, so that it may be read then; an `images.ImageError` or OSError
            raised then is the image's `reason`.
          batch_size: images per batch; the last one is padded, so that one compilation serves all. Fewer images make do with less.
          start: the number of rows to pass over.
        """
        batch_size = min(batch_size, 1 << max(0, len(sources) - 1).bit_length())
        batch_size = -(-batch_size // jax.device_count()) * jax.device_count()
        cv2.setNumThreads(0)  # parallel over images instead: OpenCV's own pool would have every thread compete for all cores
        decoding: collections.deque[tuple[np.ndarray, list[Future[str]], contextlib.ExitStack]] = collections.deque()
        computing: collections.deque[tuple[dict[str, jax.Array], list[str]]] = collections.deque()
        pool = ThreadPoolExecutor(processor.cores(), thread_name_prefix="decode")
        try:
            for first in range(start, len(sources), batch_size):
                image = np.zeros((batch_size, *self._preprocessing.shape), np.uint8)
                rows = range(first, min(first + batch_size, len(sources)))
                coming = contextlib.ExitStack()
                coming.enter_context(items.ahead(sources, rows))
                shown = [pool.submit(self._show, sources, row, image[place]) for place, row in enumerate(rows)]
                decoding.append((image, shown, coming))
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
            for _, _, coming in decoding:
                coming.close()

    def view(self, item: str | os.PathLike[str] | bytes | np.ndarray) -> np.ndarray:
        """What the model is shown of an image: uint8 [H, W, 3], or [V, H, W, 3] where evaluation shows several views of it.

        Args:
          item: a path, the bytes of an image file, or uint8 pixels [h, w, 3].

        Raises:
          images.ImageError: if it is no whole image of a known format, or has more pixels than `config.data.max_pixels`.
          OSError: if there is no such file.
        """
        return self._preprocessing.shown(self._pixels(item))

    def answers_of_views(self, views: np.ndarray) -> Answers:
        """What the classifier says of views as `view` makes them, stacked: uint8 [n, …]; each n is compiled once.

        A row's last bits may depend on n, as sums are ordered otherwise for another shape; they don't depend on the other rows.
        """
        return self._answers(self._outputs(views, len(views)), [""] * len(views))

    def table(self, ids: Sequence[str], answers: Answers, options: Options) -> pd.DataFrame:
        """Puts answers into words.

        Args:
          ids: what the images are called.
          answers: of the same images.
          options: what is said of each of them.

        Returns:
          A row per image: `id`, `predicted`, `probability`, `top1`, `top1_probability`, … as in a run's predictions.csv, and `reason`.
          After `probability` may stand `answer`, the predicted class or "unknown" where its probability is below the threshold; before
          `reason` may stand `none_of_these`, where the run has kept features: how likely so unlike an image is among images like the
          training images (a p-value: who takes those of at most 0.05 for images of none of the classes is wrong about at most 5 % of the
          images that are like the training images); and `set`, a list of the classes that the run's conformal rule admits. Where an image
          can't be read, all but `id` and `reason` are missing (NaN).

        Raises:
          UserError: if sets are asked for, and the run has no conformal rule.
        """
        read = np.flatnonzero([not reason for reason in answers.reasons])
        probabilities = answers.probabilities[read]
        if not len(read):
            probabilities = np.full((1, len(self.class_names)), 1 / len(self.class_names), np.float32)  # for its columns
        table = metrics.predictions(range(len(probabilities)), probabilities, None, self.class_names, options.top_k).drop(columns="true")
        if options.threshold is not None:
            table.insert(3, "answer", table["predicted"].where(table["probability"] >= options.threshold, UNKNOWN))
        if answers.none_of_these is not None:
            table["none_of_these"] = answers.none_of_these[read] if len(read) else np.ones(1, np.float32)
        if options.conformal:
            table["set"] = self._sets(probabilities)
        table = table.iloc[: len(read)].set_index(read).reindex(range(len(ids)))
        return table.assign(id=list(ids), reason=answers.reasons)

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that its predictions depend on: two classifiers with one sha256 say the same of every image."""
        fields = {name: value for name, value in config_lib.flatten(self.config).items() if name.startswith(_FIELDS)}
        rule = dataclasses.asdict(self.conformal) if self.conformal else None
        parts = [tree_sha256([self.params, self.batch_stats]), self.class_names, self.temperature, rule, fields, _VERSION]
        if self.open_set is not None:
            parts.append(self.open_set.sha256)
        if self.logit_offset:
            parts.append(self.logit_offset)
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogateescape")).hexdigest()

    @functools.cached_property
    def scored(self) -> weakref.WeakKeyDictionary[ImageReader, Answers]:
        """Answers of labeled images, as long as these live."""
        return weakref.WeakKeyDictionary()

    def need_conformal(self) -> Conformal:
        """The run's conformal rule.

        Raises:
          UserError: if it has none.
        """
        if self.conformal is None:
            raise UserError(
                "This run has no conformal threshold: it needs a val split or a probe's folds, and config.eval.conformal above 0; give its "
                "training command "
                "once more (a finished run is only evaluated again), with --set eval.conformal=0.1."
            )
        return self.conformal

    def _sets(self, probabilities: np.ndarray) -> list[list[str]]:
        members = sets(probabilities, self.need_conformal().threshold)
        rows = []
        for row, member in zip(probabilities, members, strict=True):
            labels = np.flatnonzero(member)
            rows.append([self.class_names[label] for label in labels[np.argsort(-row[labels], kind="stable")]])
        return rows

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 [N, C], of the network's logits, float32 [N, C]."""
        if self.logit_offset:
            logits = logits + np.array(self.logit_offset, np.float32)
        return calibration.probabilities(logits, self.temperature)

    def check(self) -> None:
        """Raises a UserError unless the parameters are those of the config's model; else that would show at the first image only."""
        if self._programs is None or not self._programs.are_there():  # a program that is kept was made for such parameters
            _ = self._eval_step

    @functools.cached_property
    def explained(self) -> Explained:
        """The network as `imgclf.explanation` takes it."""
        graphdef, _, _ = self._abstract
        return Explained(self.config, graphdef, *self._on_devices)

    @functools.cached_property
    def _abstract(self) -> tuple[nnx.GraphDef, Tree, Tree]:
        """What the config's model is like: its static definition, and the shapes of its parameters and statistics."""
        return split_model(models.abstract(self.config, len(self.class_names)))

    @functools.cached_property
    def _eval_step(self) -> EvalStep:
        graphdef, params, batch_stats = self._abstract
        expected, actual = {"params": params, "batch_stats": batch_stats}, {"params": self.params, "batch_stats": self.batch_stats}
        _check_shapes(expected, actual, len(self.class_names))
        return make_eval_step(self.config, graphdef, self._mesh, features=self.open_set is not None)

    @functools.cached_property
    def _programs(self) -> kept_programs.Programs | None:
        """Those of `_eval_step` in the cache; None where none are kept: of a network of the user's own, nobody knows what it depends on."""
        if self.config.model.name not in models.NAMES or not kept_programs.are_kept():
            return None
        fields = {name: value for name, value in config_lib.flatten(self.config).items() if name.startswith(("model.", "mesh."))}
        data = self.config.data
        shapes = [(path_name(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path((self.params, self.batch_stats))]
        about = [fields | {"model.weights": "none"}, data.image_size, data.mean, data.std, len(self.class_names), shapes]
        return kept_programs.Programs(json.dumps([*about, self.open_set is not None], default=str, sort_keys=True))

    @functools.cached_property
    def _decoding(self) -> images.Decoding:
        return images.Decoding.of(self.config.data)

    @functools.cached_property
    def _preprocessing(self) -> augment.Preprocessing:
        return augment.Preprocessing.of(self.config)

    @functools.cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return sharding.create_mesh()

    @functools.cached_property
    def _on_devices(self) -> tuple[Tree, Tree]:
        return sharding.replicate((self.params, self.batch_stats), self._mesh)

    def _show(self, sources: Items, row: int, out: np.ndarray) -> str:
        """Writes what the model is shown of an image to `out`; returns why it can't, else ""."""
        try:
            item = sources[row]
            shown = item.pixels if isinstance(item, Shown) else self.view(item)
        except images.ImageError as error:
            return str(error)
        except FileNotFoundError:
            return "missing: no such file"
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            return f"unreadable: {getattr(error, 'strerror', None) or error}"
        out[:] = shown
        return ""

    def _pixels(self, item: str | os.PathLike[str] | bytes | np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] of an image."""
        return items.pixels(item, self._decoding, self._preprocessing.least_size if self.reduced_decode else None)

    def _compute(self, image: np.ndarray, shown: list[Future[str]], coming: contextlib.ExitStack) -> tuple[dict[str, jax.Array], list[str]]:
        with coming:
            reasons = [future.result() for future in shown]
        return self._outputs(image, len(reasons)), reasons

    def _outputs(self, image: np.ndarray, count: int) -> dict[str, jax.Array]:
        """Those of the network for a batch, of which the first `count` rows are images and the others padding."""
        index = np.arange(len(image))
        batch = {"image": image, "label": np.zeros(len(image), np.int32), "index": index, "mask": index < count}
        arguments = (*self._on_devices, sharding.put_batch(batch, self._mesh))
        if self._programs is None:
            return self._eval_step(*arguments)
        outputs: dict[str, jax.Array] = self._programs.program(lambda: self._eval_step, *arguments)(*arguments)
        return outputs

    def _answers(self, outputs: dict[str, jax.Array], reasons: list[str]) -> Answers:
        unread = [bool(reason) for reason in reasons]
        probabilities = self.calibrated(np.asarray(outputs["logits"])[: len(reasons)])
        probabilities[unread] = 0
        if self.open_set is None:
            return Answers(probabilities, reasons)
        none_of_these = self.open_set.p_values(np.asarray(outputs["features"])[: len(reasons)])
        none_of_these[unread] = 0
        return Answers(probabilities, reasons, none_of_these)


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of one batch after another; at least one."""
    none_of_these = [part.none_of_these for part in parts if part.none_of_these is not None]
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        [reason for part in parts for reason in part.reasons],
        np.concatenate(none_of_these) if none_of_these else None,
    )


_WAYS_OUT = {  # by the reason's first word
    "missing": "check the path (relative ones start at {cwd})",
    "unreadable": "check the file and its permissions",
    "empty": "get the file anew",
    "truncated": "get the file anew",
    "damaged": "get the file anew",
    "too_many_pixels": "make it smaller",
}


def _refusal(sources: NamedItems, row: int, reason: str) -> str:
    """The error for an image that can't be read."""
    name = sources.ids[row]
    if reason.startswith("missing") and places.is_url(name):
        way_out = "check the address, "
    elif reason.startswith("missing") and set(name) & set("*?"):
        way_out = "patterns are not expanded, so give glob.glob(…), "
    elif reason.endswith(": a folder"):
        way_out = "give a folder by itself, "
    elif name.strip() and name != str(row):
        way_out = _WAYS_OUT.get(reason.partition(":")[0], "convert it to a JPEG or PNG file").format(cwd=os.getcwd()) + ", "
    else:
        name, way_out = "The image" if len(sources) == 1 else f"Image {row} (counted from 0)", ""
    return f"{name} can't be classified ({reason}): {way_out}leave it out, or give on_error='row' to be told in its row."


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
