"""How a model is trained: all of it (fit), a head on cached features (probe), or from such a head on all of it (lp_ft).

LP-FT: Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from imgclf.config import Config
from imgclf.data import augment, pipeline
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.methods import probe as probe_run
from imgclf.models.network import Network
from imgclf.training import freeze, loop, mixing, optimizer, sharding
from imgclf.training import phases as phases_lib
from imgclf.training import step as step_lib
from imgclf.training.evaluate import evaluate_split
from imgclf.training.state import count_parameters, select, split_model


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained model.

    Attributes:
      fit: the kept model, and how training went.
      logits_of: a split's name → rows of the table, int64 [N], and their logits, float32 [N, C].
      results: what the method adds to results.json.
      notes: remarks for its `notes`.
    """

    fit: loop.Fit
    logits_of: Callable[[str], tuple[np.ndarray, np.ndarray]]
    results: dict[str, Any]
    notes: tuple[str, ...] = ()


def settle(config: Config) -> Config:
    """Returns a copy of the config in which stands what `train.method` asks of other fields; before `pretrained.resolve`.

    A probe's head is a new one where `model.head.kind` is "auto". Distortions without `probe.views` can't come from a cache: the head is
    then trained by `fit` with everything else frozen, as retrain.py does.

    Raises:
      UserError: for a head that can't be trained on pooled features.
    """
    config = config.copy_and_resolve_references()
    train, probe = config.train, config.probe
    distorted = not augment.is_neutral(config.augment) or mixing.parameters(config)
    if train.method == "probe" and probe.solver == "minibatch" and not probe.views and distorted:
        train.method, config.freeze.preset = "fit", "head"
    if train.method in ("probe", "lp_ft"):
        probe_run.settle_head(config)
    return config


def choose(config: Config) -> str:
    """Returns "fit", "probe" or "lp_ft"; the config is resolved.

    auto is lp_ft where there are weights and the head is a new one with a single layer, else fit.
    """
    if config.train.method != "auto":
        return config.train.method
    return "lp_ft" if config.model.weights != "none" and config.model.head.kind in ("linear", "norm") else "fit"


def prepare(
    config: Config,
    dataset: Dataset,
    model: Network,
    mesh: Mesh,
    console: Console,
    on_evaluation: loop.OnEvaluation | None = None,
) -> Callable[[Path], Outcome]:
    """Makes every check that needs no work; returns what trains, given the run's folder. `on_evaluation`: see `loop.fit`.

    Raises:
      UserError: for what the user can mend; the function returned raises as `loop.fit` does.
    """
    method = choose(config)
    if method == "probe" and config.eval.flip:
        raise UserError(
            "config.eval.flip=True needs the images, and a probe is evaluated on cached features; use config.train.method='lp_ft' or 'fit'."
        )
    probe = probe_run.prepare(config, dataset, model, console) if method != "fit" else None
    fit = _prepare_fit(config, dataset, model, mesh, console, on_evaluation) if method != "probe" else None

    def train(workdir: Path) -> Outcome:
        probed = probe(workdir) if probe else None
        if fit is None:
            return Outcome(probed.fit, probed.logits_of, {"method": method, **probed.results})
        outcome = fit(workdir, probed)
        added = {"probe": probed.results["probe"]} if probed else {}
        return dataclasses.replace(outcome, results={"method": method, **outcome.results, **added})

    return train


def _prepare_fit(
    config: Config, dataset: Dataset, model: Network, mesh: Mesh, console: Console, on_evaluation: loop.OnEvaluation | None
) -> Callable[[Path, probe_run.Probed | None], Outcome]:
    per_epoch = pipeline.steps_per_epoch(dataset, config)
    plan = loop.Plan.from_config(config, per_epoch)
    schedule = optimizer.create_schedule(config, plan.total, per_epoch)
    freezing = freeze.plan(config, model, plan.total, per_epoch)
    graphdef, params, batch_stats = split_model(model)
    count = count_parameters(params)
    height, width = config.data.image_size
    console.print(
        f"Model: {config.model.name} at {height}x{width}, {count:,} parameters, {freeze.describe(freezing, params)}. "
        f"Training: {plan.total} steps of {config.loader.batch_size} ({plan.per_epoch:.1f} an epoch) "
        f"on {jax.device_count()} {jax.default_backend()} device(s).",
        highlight=False,
    )
    if freezing.remark:
        console.print(freezing.remark, highlight=False)
    if config.loader.sampling != "natural" and config.train.class_weights != "none":
        console.print(
            f"[yellow]config.loader.sampling={config.loader.sampling!r} and config.train.class_weights={config.train.class_weights!r} "
            "correct the classes' sizes twice; one of them is enough.[/]",
            highlight=False,
        )
    weights = step_lib.class_weights(config, dataset.class_names, probe_run.class_counts(dataset))
    phases = phases_lib.create(config, model, freezing, schedule, plan.total, weights, mesh)
    eval_step = step_lib.make_eval_step(config, graphdef, mesh)

    def fit(workdir: Path, probed: probe_run.Probed | None) -> Outcome:
        start_params, start_stats = (params, batch_stats) if probed is None else (probed.fit.params, probed.fit.batch_stats)
        state = sharding.replicate(phases[0].first_state(start_params, start_stats), mesh)
        options = {"trained": probed is not None, "on_evaluation": on_evaluation}
        fitted = loop.fit(config, dataset, state, phases, eval_step, schedule, mesh, workdir, console, **options)
        kept = sharding.replicate((fitted.params, fitted.batch_stats), mesh)

        def logits_of(split: str) -> tuple[np.ndarray, np.ndarray]:
            total = int((dataset.table["split"] == split).sum())
            with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
                task = bar.add_task(f"evaluating {split}", total=total)
                return evaluate_split(eval_step, *kept, dataset, config, split, mesh, lambda examples: bar.advance(task, examples))

        trainable = count_parameters(select(params, freezing.trainable))
        notes = tuple(filter(None, (freezing.remark, _soup_remark(config, fitted))))
        return Outcome(fitted, logits_of, {"params_total": count, "params_trainable": trainable}, notes)

    return fit


def _soup_remark(config: Config, fitted: loop.Fit) -> str:
    about, metric = fitted.about, config.train.best_metric
    if "ingredients" not in about:
        return ""
    return (
        f"The model is a greedy soup, the average of {len(about['ingredients'])} of the {about['candidates']} best on val, BatchNorm's "
        f"statistics too: {metric} {about[metric]:.4f}, where the best alone has {fitted.progress.best_value:.4f}."
    )
