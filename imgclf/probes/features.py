"""Features of a frozen backbone, computed once for all heads, folds, studies and data sets that show it the same images."""

import functools
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.models import registry
from imgclf.models.network import Network
from imgclf.probes.feature_store import FeatureStore
from imgclf.training import batch_augment, work
from imgclf.training.state import Tree, split_model, tree_sha256
from imgclf.training.step import normalize

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

    Images are known by the sha256 of their content, so that folds, splits, copies and other data sets share them. An augmented view is
    known by the image's id and the view's number besides: view k (from 0) is the one that training shows in epoch k with this
    `config.seed` and `config.augment`.

    Args:
      config: the whole config, resolved; model.*, data.* (preprocessing), augment.*, loader.*, seed.
      model: its backbone's parameters and statistics are part of the cache's key.
      dataset: the images.
      rows: int64 [N] of `dataset.table`; None = all.
      views: how many augmented views to add to the plain one.
      console: for the progress bar and a line on what was computed.

    Returns:
      float32 [N, D]; with views [N, 1 + views, D], the plain one first. It may be a read-only map of the file.

    Raises:
      UserError: if the cache is damaged or can't be written, or an image can no longer be read.
    """
    console = console or Console(quiet=True)
    rows = np.arange(len(dataset.table)) if rows is None else np.asarray(rows, np.int64)
    contents = [bytes.fromhex(digest) for digest in dataset.table["sha256"].iloc[rows]]
    backbone_sha256 = _backbone_sha256(model)
    plain = _extract(config, model, dataset, rows, None, contents, _identity(config, model, backbone_sha256, augmented=False), console)
    if not views:
        return plain
    epochs = np.tile(np.arange(views), len(rows))
    ids = dataset.table["id"].iloc[rows]
    keys = [_view_key(content, image_id, view) for content, image_id in zip(contents, ids, strict=True) for view in range(views)]
    identity = _identity(config, model, backbone_sha256, augmented=True)
    augmented = _extract(config, model, dataset, np.repeat(rows, views), epochs, keys, identity, console)
    return np.concatenate([plain[:, None], augmented.reshape(len(rows), views, -1)], axis=1)


def _view_key(content: bytes, image_id: str, view: int) -> bytes:
    return hashlib.sha256(content + f"{image_id}\0{view}".encode("utf-8", "surrogateescape")).digest()


def _backbone_sha256(model: Network) -> str:
    _, params, batch_stats = split_model(model)
    return tree_sha256({"params": params["backbone"], "batch_stats": batch_stats.get("backbone", {})})


def _identity(config: Config, classifier: Network, backbone_sha256: str, *, augmented: bool) -> dict[str, Any]:
    """All that a feature depends on beside the image, as JSON keeps it."""
    fields = config.to_dict()
    data, model = fields["data"], fields["model"]
    identity = {
        "model": model["name"],
        "variant": model["variant"],
        "precision": [model["precision"], np.dtype(classifier.dtype).name],  # what "auto" comes to depends on the machine
        "weights_sha256": backbone_sha256,
        "image_size": data["image_size"],
        "resize": data["resize"],
        "crop_fraction": data["crop_fraction"] if data["resize"] == "crop" else 1.0,
        "mean": data["mean"],
        "std": data["std"],
    }
    if code := registry.code_sha256(model["name"]):
        identity["code_sha256"] = code
    if model["name"] == "cnn":
        identity["cnn"] = {key: model["cnn"][key] for key in ("widths", "kernel", "padding", "pool", "norm")}
    if data["resize"] == "pad":
        identity["fill"] = [fields["augment"]["fill"], fields["augment"]["fill_value"]]
    if fields["augment"]["mode"] != "corrected":
        identity["mode"] = fields["augment"]["mode"]
    if augmented:
        of_pairs = ("mixup", "cutmix", "mix_switch", "mix_probability")  # no part of an image's own view
        identity |= {"augment": {name: value for name, value in fields["augment"].items() if name not in of_pairs}, "seed": fields["seed"]}
    return json.loads(json.dumps(identity))


def _extract(
    config: Config,
    model: Network,
    dataset: Dataset,
    rows: np.ndarray,
    epochs: np.ndarray | None,
    keys: list[bytes],
    identity: dict[str, Any],
    console: Console,
) -> np.ndarray:
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    store = FeatureStore(key, identity, model.backbone.features)
    store.refresh()
    told = False

    def missing() -> np.ndarray:
        """One place among `rows` for each key that is not there."""
        places = {keys[place]: place for place in np.flatnonzero(store.find(keys) < 0)[::-1].tolist()}
        return np.array(sorted(places.values()), np.int64)

    def wait() -> bool:
        nonlocal told
        if not told:
            console.print(f"Another process is computing features in {store.folder}; waiting for it.", highlight=False, soft_wrap=True)
        told = True
        store.refresh()
        return len(missing()) > 0

    computed, start = 0, time.perf_counter()
    if len(missing()):
        with store.writing(wait) as ours:
            if ours and len(todo := missing()):
                _compute(
                    config, model, dataset, rows[todo], None if epochs is None else epochs[todo], [keys[i] for i in todo], store, console
                )
                computed = len(todo)
    seconds = time.perf_counter() - start
    what = "images" if epochs is None else "augmented views"
    speed = f" in {seconds:,.1f} s ({computed / seconds:,.0f}/s)" if computed else ""
    console.print(f"Features of {len(rows):,} {what}: {computed:,} computed{speed}, the others in the cache ({key}).", highlight=False)
    return store.read(store.find(keys))


def features_flops(config: Config, model: Network, images: int) -> int | None:
    """Floating-point operations of the features of so many images; None where XLA doesn't tell. Nothing is computed."""
    graphdef, params, batch_stats = split_model(model)
    forward = _forward(graphdef, tuple(config.data.mean), tuple(config.data.std))
    image = jax.ShapeDtypeStruct((1, *config.data.image_size, 3), np.uint8)
    one = work.flops(forward, params, batch_stats, {"image": image})
    return None if one is None else images * one


@functools.lru_cache(maxsize=8)  # models of one kind compile once
def _forward(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[..., jax.Array]:
    @jax.jit
    def forward(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> jax.Array:
        image = normalize(batch_augment.augmented(batch, mean, std), mean, std)
        return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats)).features(image)

    return forward


def _compute(
    config: Config,
    model: Network,
    dataset: Dataset,
    rows: np.ndarray,
    epochs: np.ndarray | None,
    keys: list[bytes],
    store: FeatureStore,
    console: Console,
) -> None:
    """Runs the backbone over images that threads decode meanwhile, and appends block by block, also what was done when it is stopped."""
    mesh = Mesh(np.asarray(jax.local_devices()), ("data",))  # no other host takes part
    graphdef, params, batch_stats = split_model(model)
    replicated = NamedSharding(mesh, PartitionSpec())
    params, batch_stats = jax.device_put((params, batch_stats), replicated)
    forward = _forward(graphdef, tuple(config.data.mean), tuple(config.data.std))
    blocks: list[np.ndarray] = []
    written, last = 0, time.monotonic()

    def flush() -> None:
        nonlocal written, last, blocks
        if blocks:
            block = np.concatenate(blocks)
            blocks = []
            store.append(keys[written : written + len(block)], block)
            written += len(block)
        last = time.monotonic()

    columns = TextColumn("features"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("features", total=len(rows), note="compiling")
    with pipeline.row_batches(dataset, config, rows, epochs) as batches, bar:
        running: tuple[jax.Array, int] | None = None

        def take() -> None:
            if running is not None:
                blocks.append(np.asarray(running[0])[: running[1]])
                bar.update(task, advance=running[1], note="")

        try:
            for batch in batches:
                shown = jax.device_put(batch_augment.inputs(batch), NamedSharding(mesh, PartitionSpec("data")))
                result = forward(params, batch_stats, shown), int(batch["mask"].sum())
                take()  # the batch before, while this one is computed
                running = result
                if sum(map(len, blocks)) >= _BLOCK_ROWS or time.monotonic() - last > _BLOCK_SECONDS:
                    flush()
            take()
        finally:
            flush()
