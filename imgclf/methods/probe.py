"""The probe of a run: features from the cache, a head solved on them, and the model that the two make, kept like any other."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from imgclf.config import Config
from imgclf.data import augment
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.methods import minibatch_head
from imgclf.models import registry
from imgclf.models.heads import NormHead
from imgclf.models.network import Network
from imgclf.models.weights import pretrained
from imgclf.probes.cross_validation import DEFAULT_STRENGTHS, CrossValidation, Linear, fit_linear
from imgclf.probes.features import extract
from imgclf.training import loop, mixing
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.state import Tree, count_parameters, split_model, tree_sha256
from imgclf.training.step import class_weights

KEPT = "probe"  # the model's folder in checkpoints/
_ROWS = 8192  # of features through the head at once


@dataclasses.dataclass(frozen=True)
class Probed:
    """The outcome: the kept model as of training, the logits of a split from its cached features, entries of results.json."""

    fit: loop.Fit
    logits_of: Callable[[str], tuple[np.ndarray, np.ndarray]]
    results: dict[str, Any]


def settle_head(config: Config) -> None:
    """Makes `model.head` (in place) one that pooled features can train.

    Raises:
      UserError: if it can't be.
    """
    head, solver = config.model.head, config.probe.solver
    if head.kind == "auto":
        pretrained.check_name(config.model.name)
        head.kind = registry.family(config.model.name).new_head
    fits = head.kind in ("linear", "norm") or (solver == "minibatch" and head.kind == "mlp" and not head.flatten)
    if not fits:
        kind = f"{head.kind!r} with flatten" if head.kind == "mlp" and head.flatten else repr(head.kind)
        way_out = "config.train.method='fit'" if head.kind != "mlp" or head.flatten else "config.probe.solver='minibatch'"
        raise UserError(
            f"config.model.head.kind={kind} can't be solved by config.probe.solver={solver!r} on averaged features; "
            f"use head.kind='linear' or 'norm', or {way_out}."
        )


def class_counts(dataset: Dataset) -> np.ndarray:
    """Training images of each class, int64 [C]."""
    labels = dataset.table.loc[dataset.table["split"] == "train", "label"]
    return np.bincount(labels, minlength=len(dataset.class_names))


def prepare(config: Config, dataset: Dataset, model: Network, console: Console) -> Callable[[Path], Probed]:
    """Checks that a probe can be had, and returns what gets it, given the run's folder.

    Raises:
      UserError: for more folds than members of a class; the function returned raises as `features.extract` does.
    """
    table, probe = dataset.table, config.probe
    alone = config.train.method == "probe"  # else `loop.fit` follows, and evaluates another backbone
    train_rows = np.flatnonzero((table["split"] == "train").to_numpy())
    weight = class_weights(config, dataset.class_names, class_counts(dataset))
    if not augment.is_neutral(config.augment) and not probe.views:
        console.print("config.augment does nothing to a probe without config.probe.views: features are of plain images.", highlight=False)
    if mixing.parameters(config):
        console.print("config.augment.mixup and cutmix do nothing to a probe: its features are of single images.", highlight=False)
    if config.loader.sampling != "natural" and probe.solver != "minibatch":
        console.print(
            f"config.loader.sampling does nothing to a {probe.solver} probe, which takes all images at once; use train.class_weights.",
            highlight=False,
        )
    solve = _prepare_minibatch if probe.solver == "minibatch" else _prepare_linear
    solve = solve(config, dataset, model, train_rows, weight, console)
    params, batch_stats = jax.device_get(split_model(model)[1:])

    def logits_of(params: Tree, batch_stats: Tree, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((table["split"] == split).to_numpy())
        features = extract(config, model, dataset, rows=rows)
        return rows, head_logits(model.head, params["head"], batch_stats.get("head", {}), features)

    def run(workdir: Path) -> Probed:
        folder = workdir / "checkpoints" / KEPT
        if folder.is_dir():
            kept, about = load_model(folder)
        else:
            start = time.perf_counter()
            if alone:
                extract(config, model, dataset, console=console)  # all splits in one go
            found = solve(workdir if alone else workdir / KEPT)
            kept = {"params": params | found.params, "batch_stats": batch_stats | found.batch_stats}
            progress = found.progress | {"kept": KEPT, "seconds": time.perf_counter() - start}
            about = {"class_names": list(dataset.class_names), "params_sha256": tree_sha256(kept["params"]), "steps": found.steps}
            about |= {"progress": progress, "probe": {"solver": probe.solver, **found.about}}
            checkpoints = Checkpoints(workdir / "checkpoints")
            checkpoints.save_model(KEPT, kept["params"], kept["batch_stats"], about)
            checkpoints.close()
        _tell(about["probe"], console)
        fit = loop.Fit(kept["params"], kept["batch_stats"], about, loop.TrainProgress(**about["progress"]), about["steps"])
        trainable = count_parameters(kept["params"]["head"])
        results = {"params_total": count_parameters(kept["params"]), "params_trainable": trainable, "probe": about["probe"]}
        return Probed(fit, lambda split: logits_of(kept["params"], kept["batch_stats"], split), results)

    return run


@dataclasses.dataclass(frozen=True)
class _Found:
    """A solved head: its parameters and statistics, `{"head": …}`, what results.json says of it, and how training went."""

    params: Tree
    batch_stats: Tree
    about: dict[str, Any]
    progress: dict[str, Any]
    steps: int


def _prepare_linear(
    config: Config, dataset: Dataset, model: Network, rows: np.ndarray, weight: np.ndarray | None, console: Console
) -> Callable[[Path], _Found]:
    probe, train = config.probe, dataset.table.iloc[rows]
    console = None if config.train.method == "probe" and not probe.views else console  # it has told of the features
    labels, strengths = train["label"].to_numpy(), tuple(map(float, probe.l2)) or DEFAULT_STRENGTHS
    plan = CrossValidation.plan(labels, groups_of(train), dataset.class_names, strengths, probe.folds, config.seed, probe.solver)

    def solve(folder: Path) -> _Found:
        features = extract(config, model, dataset, rows=rows, views=probe.views, console=console)
        if isinstance(model.head, NormHead):
            features = _normalized(model.head, features)
        solved = fit_linear(features, labels, plan, solver=probe.solver, standardize=probe.standardize, class_weight=weight)
        head = split_model(model.head)[1] | {"logits": linear_head(solved, config.model.output)}
        return _Found({"head": head}, {}, solved.about, {}, 0)

    return solve


def _normalized(head: NormHead, features: np.ndarray) -> np.ndarray:
    """What the output layer sees of pooled features, float32 [..., D]."""
    return np.concatenate([np.asarray(head.hidden(features[start : start + _ROWS])) for start in range(0, len(features), _ROWS)])


def _prepare_minibatch(
    config: Config, dataset: Dataset, model: Network, rows: np.ndarray, weight: np.ndarray | None, console: Console
) -> Callable[[Path], _Found]:
    train = minibatch_head.prepare(config, dataset, model, weight, console)

    def solve(folder: Path) -> _Found:
        features = extract(config, model, dataset, console=None if config.train.method == "probe" else console)[:, None]
        if config.probe.views:
            views = extract(config, model, dataset, rows=rows, views=config.probe.views, console=console)
            features = np.repeat(features, views.shape[1], axis=1)  # what is evaluated is never shown but plain
            features[rows] = views
        fitted = train(features, folder)
        about = {"l2": None, "folds": None, "cross_validation": None, "steps": fitted.steps}
        return _Found(fitted.params, fitted.batch_stats, about, dataclasses.asdict(fitted.progress), fitted.steps)

    return solve


def linear_head(solved: Linear, output: str) -> Tree:
    """The parameters of `Head.logits` that give these logits: a column per class, or the difference of two for a sigmoid unit."""
    if output == "sigmoid":
        return {"kernel": solved.kernel[:, 1:] - solved.kernel[:, :1], "bias": solved.bias[1:] - solved.bias[:1]}
    return {"kernel": solved.kernel, "bias": solved.bias}


def head_logits(head: nnx.Module, params: Tree, batch_stats: Tree, features: np.ndarray) -> np.ndarray:
    """Runs a head in evaluation mode over pooled features, float32 [N, D]; returns logits, float32 [N, C]."""
    graphdef, _, _ = split_model(head)
    parts = (features[start : start + _ROWS] for start in range(0, len(features), _ROWS))
    return np.concatenate([np.asarray(_head_forward(graphdef, params, batch_stats, part)) for part in parts])


@functools.partial(jax.jit, static_argnums=0)  # one program for all heads of a kind
def _head_forward(graphdef: nnx.GraphDef, params: Tree, batch_stats: Tree, features: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))(features[:, None, None])


def _tell(about: dict[str, Any], console: Console) -> None:
    scores, told = about["cross_validation"], f"Probe: {about['solver']}"
    if scores is not None and len(scores) > 1:
        curve = ", ".join(f"{row['l2']:g}: {row['top1']:.1%}" for row in scores)
        told += f", l2 {about['l2']:g}, of the lowest loss over {about['folds']} folds of the training images (top-1 there: {curve})"
    elif about["l2"] is not None:
        told += f", l2 {about['l2']:g}, as given"
    console.print(f"{told}.", highlight=False)
