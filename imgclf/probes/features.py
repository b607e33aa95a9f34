"""Features of a frozen backbone, computed once for all heads, folds, studies and data sets that show it the same images."""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from imgclf import formatting, progress
from imgclf.config import Config
from imgclf.data import augment, pipeline, readers
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.models import forms, registry
from imgclf.models.network import Network
from imgclf.probes import shared_features
from imgclf.probes.feature_store import FeatureStore
from imgclf.training import batch_augment, work
from imgclf.training.state import Tree, split_model, tree_sha256
from imgclf.training.step import normalize


class OutOfTime(UserError):
    """Features that would not be there in the time that `within` allows. Those that were computed are in the cache."""


_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("_deadline", default=math.inf)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Has `extract` in the block give up, by OutOfTime, as soon as its pace says that it would take longer than that from now on."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


# A kill costs at most the rows since the last block; a block costs two fsyncs.
_BLOCK_ROWS, _BLOCK_SECONDS = 1024, 5.0


def extract(
    config: Config,
    model: Network,
    dataset: Dataset,
    *,
    rows: np.ndarray | None = None,
    views: int = 0,
    console: Console | None = None,
) -> np.ndarray:
    """Returns the backbone's pooled features, in evaluation mode; what the cache lacks is computed and put there.

    Where `config.eval.views` shows more than the plain view, an image's features are the mean over these views. Each view is cached by
    itself, so that whoever asks for another selection of views computes only what is new, and decodes each image once for all of it.
    Images are known by the sha256 of their content, so that folds, splits, copies and other data sets share them. An augmented view is
    known by the image's id and the view's number besides: view k (from 0) is the one that training shows in epoch k with this
    `config.seed` and `config.augment`.

    Args:
      config: the whole config, resolved; model.*, data.* (preprocessing), augment.*, loader.*, seed.
      model: its backbone's parameters and statistics are part of the cache's key.
      dataset: the images.
      rows: int64 [N] of `dataset.table`; None = all.
      views: how many augmented views to add to those of evaluation.
      console: for the progress bar and a line on what was computed.

    Returns:
      float32 [N, D]; with views [N, 1 + views, D], those of evaluation first. It may be a read-only map of the file.

    Raises:
      UserError: if the cache is damaged or can't be written, or an image can no longer be read; for images that are not verified yet.
    """
    if dataset.unverified is not None:
        raise UserError("Features are of verified images, which are known by their content: set config.data.verify='first'.")
    console = console or Console(quiet=True)
    rows = np.arange(len(dataset.table)) if rows is None else np.asarray(rows, np.int64)
    contents = [bytes.fromhex(digest) for digest in dataset.table["sha256"].iloc[rows]]
    if kept := readers.kept_as(dataset.reader):  # a pack's pictures are not the photos whose sha256 the table has
        contents = [hashlib.sha256(content + kept.encode()).digest() for content in contents]
    backbone_sha256 = _backbone_sha256(model)
    shown = augment.Preprocessing.of(config).evaluation
    request = _Request(config, model, dataset, rows, None, contents)
    plain = _read(request, [_identity(config, model, backbone_sha256, view) for view in shown], console)
    if not views:
        return plain
    epochs = np.tile(np.arange(views), len(rows))
    ids = dataset.table["id"].iloc[rows]
    keys = [_view_key(content, image_id, view) for content, image_id in zip(contents, ids, strict=True) for view in range(views)]
    identity = _identity(config, model, backbone_sha256, shown[0], augmented=True)
    augmented = _read(_Request(config, model, dataset, np.repeat(rows, views), epochs, keys), [identity], console)
    return np.concatenate([plain[:, None], augmented.reshape(len(rows), views, -1)], axis=1)


def _view_key(content: bytes, image_id: str, view: int) -> bytes:
    return hashlib.sha256(content + f"{image_id}\0{view}".encode("utf-8", "surrogateescape")).digest()


def _backbone_sha256(model: Network) -> str:
    _, params, batch_stats = split_model(model)
    return tree_sha256({"params": params["backbone"], "batch_stats": batch_stats.get("backbone", {})})


def _identity(config: Config, classifier: Network, backbone_sha256: str, view: augment.View, *, augmented: bool = False) -> dict[str, Any]:
    """All that a feature of one view depends on beside the image, as JSON keeps it."""
    fields = config.to_dict()
    data, model = fields["data"], fields["model"]
    identity = {
        "model": model["name"],
        "variant": model["variant"],
        "precision": [model["precision"], np.dtype(classifier.dtype).name],  # what "auto" comes to depends on the machine
        "weights_sha256": backbone_sha256,
        "image_size": data["image_size"],
        "resize": view.resize,
        "crop_fraction": view.crop_fraction,
        "mean": data["mean"],
        "std": data["std"],
    }
    if code := registry.code_sha256(model["name"]):
        identity["code_sha256"] = code
    if model["name"] == "cnn":
        identity["cnn"] = {key: model["cnn"][key] for key in ("widths", "kernel", "padding", "pool", "norm")}
    if data["interpolation"] != "bilinear":
        identity["interpolation"] = data["interpolation"]
    if view.resize == "pad":
        identity["fill"] = [fields["augment"]["fill"], fields["augment"]["fill_value"]]
    if fields["augment"]["mode"] != "corrected":
        identity["mode"] = fields["augment"]["mode"]
    if view.flip:
        identity["mirrored"] = True
    if augmented:
        left_out = {"mixup", "cutmix", "mix_switch", "mix_probability"}  # no part of an image's own view
        if not fields["augment"]["image_size"]:
            left_out.add("image_size")
        identity |= {"augment": {name: value for name, value in fields["augment"].items() if name not in left_out}, "seed": fields["seed"]}
    return json.loads(json.dumps(identity))


@dataclasses.dataclass(frozen=True)
class _Request:
    """Features that are asked for: those of some views of images, each known by a key of 32 bytes.

    Attributes:
      config, model, dataset: as in `extract`.
      rows: int64 [n], of the table.
      epochs: int64 [n], the number of each augmented view; None = those of evaluation.
      keys: n of them.
    """

    config: Config
    model: Network
    dataset: Dataset
    rows: np.ndarray
    epochs: np.ndarray | None
    keys: list[bytes]

    def missing(self, store: FeatureStore) -> np.ndarray:
        """One place among `rows` for each key that the store lacks, int64 [m]."""
        places = {self.keys[place]: place for place in np.flatnonzero(store.find(self.keys) < 0)[::-1].tolist()}
        return np.array(sorted(places.values()), np.int64)

    def at(self, places: np.ndarray) -> "_Request":
        """Those at these places only."""
        epochs = None if self.epochs is None else self.epochs[places]
        return dataclasses.replace(self, rows=self.rows[places], epochs=epochs, keys=[self.keys[place] for place in places])


class _Waiting:
    """Waits while another process computes: tells so once, and stops waiting when there is nothing left to compute."""

    def __init__(self, request: _Request, store: FeatureStore, console: Console):
        self._request, self._store, self._console, self._told = request, store, console, False

    def __call__(self) -> bool:
        if not self._told:
            told = f"Another process is computing features in {self._store.folder}; waiting for it."
            self._console.print(told, highlight=False, soft_wrap=True)
        self._told = True
        self._store.refresh()
        return len(self._request.missing(self._store)) > 0


def _read(request: _Request, identities: list[dict[str, Any]], console: Console) -> np.ndarray:
    """The features, float32 [n, D], the mean over views; what the caches lack is computed.

    Args:
      request: the images, and how they are shown.
      identities: of each view that is shown.
      console: for the progress bar and a line on what was computed.
    """
    keys = [hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16] for identity in identities]
    width = request.model.backbone.features
    stores = [FeatureStore(key, identity, width) for key, identity in zip(keys, identities, strict=True)]
    for store in stores:
        store.refresh()
    start = time.perf_counter()
    computed = _complete(request, stores, console)
    seconds = time.perf_counter() - start
    what = "augmented views" if request.epochs is not None else "images" if len(stores) == 1 else f"images in {len(stores)} views"
    speed = f" in {seconds:,.1f} s ({computed / seconds:,.0f}/s)" if computed else ""
    cached = len(request.rows) * len(stores) - computed
    from_cache = f"{', ' if computed else ''}{cached:,} from the cache" if cached else ""
    of_these = f"{computed:,} computed{speed}" if computed else ""
    console.print(f"Features of {len(request.rows):,} {what}: {of_these}{from_cache}.", highlight=False)
    if len(stores) == 1:
        return stores[0].read(stores[0].find(request.keys))
    mean = np.zeros((len(request.rows), width), np.float32)
    for store in stores:
        mean += store.read(store.find(request.keys))
    return mean / np.float32(len(stores))


def _complete(request: _Request, stores: list[FeatureStore], console: Console) -> int:
    """Computes what the stores of the views lack, and returns how many features that were.

    Views that lack the same images are computed together, so that these are decoded once.
    """
    computed = 0
    if shared_features.is_shared():  # what then is still missing, another training is computing in this host's cache
        computed = shared_features.complete(request, stores, lambda store: _Waiting(request, store, console), _computed, console)
    with contextlib.ExitStack() as locks:
        ours = []
        for view in sorted(range(len(stores)), key=lambda view: stores[view].key):  # in one order, so that no two processes wait in a ring
            if len(request.missing(stores[view])) and locks.enter_context(stores[view].writing(_Waiting(request, stores[view], console))):
                ours.append(view)
        passes: dict[bytes, list[int]] = {}
        for view in sorted(ours):
            passes.setdefault(request.missing(stores[view]).tobytes(), []).append(view)
        for places, views in passes.items():
            todo = request.at(np.frombuffer(places, np.int64))
            if len(todo.rows):
                _compute(todo, {view: stores[view] for view in views}, console)
                computed += len(todo.rows) * len(views)
        return computed


def features_flops(config: Config, model: Network, views: int) -> int | None:
    """Floating-point operations of the features of so many views of images; None where XLA doesn't tell. Nothing is computed."""
    graphdef, params, batch_stats = split_model(model)
    forward = forward_of(graphdef, tuple(config.data.mean), tuple(config.data.std))
    image = jax.ShapeDtypeStruct((1, *config.data.image_size, 3), np.uint8)
    one = work.flops(forward, params, batch_stats, {"image": image})
    return None if one is None else views * one


@functools.lru_cache(maxsize=8)  # models of one kind compile once
def forward_of(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.stages.Wrapped:
    """Returns `forward(params, batch_stats, batch)`, compiled: the pooled features, float32 [B,D], of a batch's images."""

    @jax.jit
    def forward(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> jax.Array:
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
        return model.features(normalize(batch_augment.augmented(batch, mean, std), mean, std))

    return forward


class _Writer:
    """Appends features to the store, block by block."""

    def __init__(self, store: FeatureStore, keys: list[bytes]):
        self._store, self._keys = store, keys
        self._blocks: list[np.ndarray] = []
        self._written, self._last = 0, time.monotonic()

    def add(self, features: np.ndarray) -> None:
        """Takes the next rows; they are written when they are many, or have waited long."""
        self._blocks.append(features)
        if sum(map(len, self._blocks)) >= _BLOCK_ROWS or time.monotonic() - self._last > _BLOCK_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been taken."""
        if self._blocks:
            block = np.concatenate(self._blocks)
            self._blocks = []
            self._store.append(self._keys[self._written : self._written + len(block)], block)
            self._written += len(block)
        self._last = time.monotonic()


def _compute(request: _Request, stores: Mapping[int, FeatureStore], console: Console) -> None:
    """Runs the backbone over images that threads decode meanwhile, and appends block by block, also what was done when it is stopped.

    Args:
      request: what is computed.
      stores: by the number of the view of evaluation whose features go there; 0 for augmented views.
      console: for the progress bar.
    """
    writers = [_Writer(store, request.keys) for store in stores.values()]
    with contextlib.ExitStack() as opened:
        for writer in writers:
            opened.callback(writer.flush)
        bar = opened.enter_context(progress.bar(console, rate="images"))
        task = bar.add_task("features", total=len(request.rows))
        pace = _Pace(len(request.rows))
        for of_views in opened.enter_context(contextlib.closing(_computed(request, list(stores)))):
            for writer, features in zip(writers, of_views, strict=True):
                writer.add(features)
            bar.update(task, advance=len(of_views[0]))
            pace.check(len(of_views[0]))


class _Pace:
    """How long a pass will still take, by the batches after the first, which waits for the program to be compiled."""

    def __init__(self, rows: int):
        self._rows, self._done, self._counted, self._start = rows, 0, 0, 0.0

    def check(self, rows: int) -> None:
        """Counts a batch of rows that is done; raises OutOfTime if those that remain would be done too late."""
        now, self._done = time.monotonic(), self._done + rows
        if not self._start:
            self._start = now
            return
        self._counted += rows
        left, needed = _deadline.get() - now, (self._rows - self._done) * (now - self._start) / self._counted
        if needed > max(left, 0.0):
            told = f"{formatting.duration(needed)} more, and {formatting.duration(max(left, 0.0))} are left"
            raise OutOfTime(f"its features would take about {told}")


def _computed(request: _Request, views: Sequence[int]) -> Generator[list[np.ndarray]]:
    """The features of these views, float32 [b, D] each, a batch at a time; each is waited for while the next one is computed."""
    config = request.config
    mesh = Mesh(np.asarray(jax.local_devices()), ("data",))  # other hosts compute other images
    graphdef, params, batch_stats = split_model(request.model)
    params, batch_stats = jax.device_put((params, batch_stats), NamedSharding(mesh, PartitionSpec()))
    forward = forward_of(graphdef, tuple(config.data.mean), tuple(config.data.std))

    def started(batch: pipeline.Batch) -> list[jax.Array]:
        inputs, image = batch_augment.inputs(batch), batch["image"]
        each = [inputs | {"image": image[:, view]} for view in views] if image.ndim == 5 else [inputs]
        with forms.on_devices_of(mesh):
            return [forward(params, batch_stats, jax.device_put(one, NamedSharding(mesh, PartitionSpec("data")))) for one in each]

    running: tuple[list[jax.Array], int] | None = None
    with pipeline.row_batches(request.dataset, config, request.rows, request.epochs, in_all_views=True) as batches:
        for batch in batches:
            now = started(batch), int(batch["mask"].sum())
            if running is not None:
                yield [np.asarray(features)[: running[1]] for features in running[0]]
            running = now
        if running is not None:
            yield [np.asarray(features)[: running[1]] for features in running[0]]
