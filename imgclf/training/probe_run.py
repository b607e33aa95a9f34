"""The probe of a run: features from the cache, a head solved on them, and the model that the two make, kept like any other."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from imgclf.data import augment
from imgclf.data.splits import groups_of
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.models.classifier import Classifier
from imgclf.training import loop
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.features import extract
from imgclf.training.probe import DEFAULT_STRENGTHS, CrossValidation, Linear, fit_linear
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


def settle_head(config: ConfigDict) -> None:
    """Makes `model.head` (in place) one that pooled features can train.

    Raises:
      UserError: if it can't be.
    """
    head, solver = config.model.head, config.probe.solver
    if head.kind == "auto":
        head.kind = "linear"
    fits = head.kind == "linear" or (solver == "minibatch" and head.kind == "mlp" and not head.flatten)
    if not fits:
        kind = f"{head.kind!r} with flatten" if head.kind == "mlp" and head.flatten else repr(head.kind)
        way_out = "config.train.method='fit'" if head.kind != "mlp" or head.flatten else "config.probe.solver='minibatch'"
        raise UserError(
            f"config.model.head.kind={kind} can't be solved by config.probe.solver={solver!r} on averaged features; "
            f"use head.kind='linear', or {way_out}."
        )


def class_counts(dataset: Dataset) -> np.ndarray:
    """Training images of each class, int64 [C]."""
    labels = dataset.table.loc[dataset.table["split"] == "train", "label"]
    return np.bincount(labels, minlength=len(dataset.class_names))


def prepare(config: ConfigDict, dataset: Dataset, model: Classifier, console: Console) -> Callable[[Path], Probed]:
    """Checks that a probe can be had, and returns what gets it, given the run's folder.

    Raises:
      UserError: for more folds than members of a class; the function returned raises as `features.extract` does.
    """
    table, probe = dataset.table, config.probe
    train_rows = np.flatnonzero((table["split"] == "train").to_numpy())
    labels = table["label"].to_numpy()[train_rows]
    strengths = tuple(map(float, probe.l2)) or DEFAULT_STRENGTHS
    weight = class_weights(config, dataset.class_names, class_counts(dataset))
    groups, names = groups_of(table.iloc[train_rows]), dataset.class_names
    plan = CrossValidation.plan(labels, groups, names, strengths, probe.folds, config.seed, probe.solver)
    _, params, batch_stats = split_model(model)
    if not augment.is_neutral(config.augment) and not probe.views:
        console.print("config.augment does nothing to a probe without config.probe.views: features are of plain images.", highlight=False)

    def logits_of(params: Tree, batch_stats: Tree, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((table["split"] == split).to_numpy())
        features = extract(config, model, dataset, rows=rows, console=Console(quiet=True))
        return rows, head_logits(model.head, params["head"], batch_stats.get("head", {}), features)

    def run(workdir: Path) -> Probed:
        folder = workdir / "checkpoints" / KEPT
        if folder.is_dir():
            kept, about = load_model(folder)
            new_params, new_stats = kept["params"], kept["batch_stats"]
        else:
            start = time.perf_counter()
            rows = np.arange(len(table)) if config.train.method == "probe" else train_rows  # lp_ft evaluates another backbone
            extract(config, model, dataset, rows=rows, console=console)
            features = extract(config, model, dataset, rows=train_rows, views=probe.views, console=console if probe.views else None)
            solved = fit_linear(features, labels, plan, solver=probe.solver, standardize=probe.standardize, class_weight=weight)
            new_params = jax.device_get(params) | {"head": {"logits": linear_head(solved, config.model.output)}}
            new_stats = jax.device_get(batch_stats)
            about = {"class_names": list(dataset.class_names), "params_sha256": tree_sha256(new_params)}
            about |= {"probe": {"solver": probe.solver, **solved.about}, "seconds": time.perf_counter() - start}
            checkpoints = Checkpoints(workdir / "checkpoints")
            checkpoints.save_model(KEPT, new_params, new_stats, about)
            checkpoints.close()
        _tell(about["probe"], console)
        progress = loop.TrainProgress(kept=KEPT, seconds=about["seconds"])
        results = {"params_total": count_parameters(new_params), "params_trainable": count_parameters(new_params["head"])}
        fit = loop.Fit(new_params, new_stats, about, progress, 0)
        return Probed(fit, lambda split: logits_of(new_params, new_stats, split), results | {"probe": about["probe"]})

    return run


def linear_head(solved: Linear, output: str) -> Tree:
    """The parameters of `Head.logits` that give these logits: a column per class, or the difference of two for a sigmoid unit."""
    if output == "sigmoid":
        return {"kernel": solved.kernel[:, 1:] - solved.kernel[:, :1], "bias": solved.bias[1:] - solved.bias[:1]}
    return {"kernel": solved.kernel, "bias": solved.bias}


def head_logits(head: nnx.Module, params: Tree, batch_stats: Tree, features: np.ndarray) -> np.ndarray:
    """Runs a head in evaluation mode over pooled features, float32 [N, D]; returns logits, float32 [N, C]."""
    graphdef, _, _ = split_model(head)

    @jax.jit
    def forward(features: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))(features[:, None, None])

    return np.concatenate([np.asarray(forward(features[start : start + _ROWS])) for start in range(0, len(features), _ROWS)])


def _tell(about: dict[str, Any], console: Console) -> None:
    scores = about["cross_validation"]
    if scores is None:
        chosen = "as given"
    else:
        curve = ", ".join(f"{row['l2']:g}: {row['top1']:.1%}" for row in scores)
        chosen = f"of the lowest loss over {about['folds']} folds of the training images (top-1 there: {curve})"
    console.print(f"Probe: {about['solver']}, l2 {about['l2']:g}, {chosen}.", highlight=False)
