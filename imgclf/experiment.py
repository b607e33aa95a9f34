"""One experiment: data → split and audited table → trained model → evaluation → report, all of it in the run's folder."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from imgclf import config as config_lib
from imgclf import models, validation
from imgclf.data import pipeline
from imgclf.data.audit import audit
from imgclf.data.splits import assign_splits
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError
from imgclf.evaluation import confidence, metrics, numbers
from imgclf.models import pretrained
from imgclf.reporting import report, samples
from imgclf.training import loop, optim, sharding
from imgclf.training import step as step_lib
from imgclf.training.evaluate import evaluate_split
from imgclf.training.state import count_parameters, create_state, make_apply_fn, split_model


def run(config: ConfigDict, workdir: Path, console: Console | None = None) -> dict[str, Any]:
    """Trains, evaluates and reports one experiment in `workdir`; continues there if it was interrupted.

    A run that had finished is evaluated and reported again, which is cheap and changes nothing.

    Returns:
      the contents of `results.json`.

    Raises:
      UserError: for anything that the user can mend.
      loop.Interrupted: if training was asked to stop; its state is saved.
    """
    console = console or Console(quiet=jax.process_index() != 0)
    validation.validate(config)
    sharding.check_batch_size(config.loader.batch_size, "loader.batch_size")
    sharding.check_batch_size(config.loader.eval_batch_size, "loader.eval_batch_size")
    optim.check_optimizer(config)
    pretrained.check_name(config.model.name)
    pretrained.resolve(config)  # finds the weights, or says that they don't exist, before the data are read
    with _claim(workdir):
        all_data = assign_splits(load_dataset(config), config)
        dataset, audit_report = audit(all_data, config)
        config = pretrained.resolve(config, len(dataset.class_names))
        _check_same_experiment(config, workdir)
        _check_same_data(dataset, workdir)
        _describe_data(dataset, audit_report, console)

        mesh = sharding.create_mesh()
        model = models.create(config, len(dataset.class_names), tell=console.print)
        graphdef, params, batch_stats = split_model(model)
        per_epoch = pipeline.steps_per_epoch(dataset, config)
        plan = loop.Plan.from_config(config, per_epoch)
        schedule = optim.create_schedule(config, plan.total, per_epoch)
        tx = optim.create_optimizer(config, schedule, params)
        _describe_model(config, params, plan, console)
        state = sharding.replicate(create_state(params, batch_stats, tx), mesh)

        counts = dataset.table.loc[dataset.table["split"] == "train", "label"].value_counts()
        counts = counts.reindex(range(len(dataset.class_names)), fill_value=0).to_numpy()
        weights = step_lib.class_weights(config, dataset.class_names, counts)
        apply = make_apply_fn(graphdef)
        train_step = step_lib.make_train_step(config, apply, tx, weights, mesh)
        eval_step = step_lib.make_eval_step(config, apply, mesh)
        if jax.process_index() == 0:
            _write_inputs(workdir, config, dataset, audit_report)  # from here on the folder is this experiment's
        fit = loop.fit(config, dataset, state, train_step, eval_step, schedule, mesh, workdir, console)

        results, predictions = _evaluate(config, dataset, fit, eval_step, mesh, audit_report, console)
        results |= {"params_total": count_parameters(params), "params_trainable": count_parameters(params)}
        if jax.process_index() == 0:
            _write_text(workdir / "predictions.csv", predictions.to_csv(index=False))
            samples.save(workdir, all_data, predictions, audit_report)  # also pictures of the copies that were dropped
            _write_json(workdir / "results.json", results)
            page = report.write_report(workdir)
            console.print(f"\n[bold]{metrics.headline(results)}[/]", highlight=False)
            console.print(f"Report: {page}", highlight=False, soft_wrap=True)
        return results


@contextlib.contextmanager
def _claim(workdir: Path) -> Iterator[None]:
    """Makes the run's folder, and keeps a second process out of it while this one writes there."""
    try:
        (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The run's folder {workdir} can't be made ({error.strerror}); choose another with --workdir=DIR.") from None
    if jax.process_index():
        yield
        return
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another process is running in {workdir}; wait for it, or choose another --workdir.") from None
        yield


def _check_same_experiment(config: ConfigDict, workdir: Path) -> None:
    saved = workdir / "config.json"
    if not saved.exists():
        return
    changes = config_lib.changes(config_lib.from_json(saved.read_text()), config)
    if changes:
        told = "; ".join(f"config.{name} was {old!r}, now {new!r}" for name, (old, new) in changes.items())
        raise UserError(
            f"{workdir} holds a run with another config: {told}. Choose another --workdir, or give the old values back to continue."
        )


_IDENTITY = ["id", "label", "split", "sha256"]


def _check_same_data(dataset: Dataset, workdir: Path) -> None:
    saved = workdir / "dataset.parquet"
    if not saved.exists():
        return
    before = pd.read_parquet(saved, columns=_IDENTITY).set_index("id")
    now = dataset.table[_IDENTITY].set_index("id")
    added, removed = now.index.difference(before.index), before.index.difference(now.index)
    common = now.index.intersection(before.index)
    differing = common[(now.loc[common] != before.loc[common]).any(axis=1)]
    if len(added) or len(removed) or len(differing):
        example = next(iter([*added, *removed, *differing]))
        raise UserError(
            f"The data has changed since the run in {workdir} began: {len(added)} added, {len(removed)} gone, {len(differing)} with other "
            f"contents, label or split (such as {example!r}). Choose another --workdir, or bring the old data back to continue."
        )


def _describe_data(dataset: Dataset, audit_report: dict[str, Any], console: Console) -> None:
    sizes = dataset.table["split"].value_counts()
    splits = ", ".join(f"{sizes[name]} {name}" for name in ("train", "val", "test") if name in sizes)
    console.print(f"Data: {len(dataset.table)} images of {len(dataset.class_names)} classes ({splits}).", highlight=False)
    if len(dataset.quarantine):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.quarantine["reason"].value_counts().items())
        console.print(
            f"[yellow]Quarantined {numbers.count(len(dataset.quarantine), 'file')} ({reasons}); see quarantine.csv.[/]", highlight=False
        )
    if (relabeled := _relabeled(dataset)) > 0:
        console.print(f"{numbers.count(relabeled, 'label')} corrected by config.data.label_patch.", highlight=False)
    if dataset.ignored:
        ignored = ", ".join(f"{count} {kind}" for kind, count in dataset.ignored.items())
        console.print(f"Ignored {ignored}.", highlight=False)
    if audit_report["dropped"]:
        console.print(
            f"[yellow]Dropped {numbers.count(len(audit_report['dropped']), 'copy', 'copies')} of evaluation images; see audit.json.[/]",
            highlight=False,
        )


def _describe_model(config: ConfigDict, params: dict[str, Any], plan: loop.Plan, console: Console) -> None:
    count = count_parameters(params)
    height, width = config.data.image_size
    console.print(
        f"Model: {config.model.name} at {height}x{width}, {count:,} parameters, all trainable. Training: {plan.total} steps of "
        f"{config.loader.batch_size} ({plan.per_epoch:.1f} an epoch) on {jax.device_count()} {jax.default_backend()} device(s).",
        highlight=False,
    )


def _write_inputs(workdir: Path, config: ConfigDict, dataset: Dataset, audit_report: dict[str, Any]) -> None:
    aside = workdir / "dataset.parquet.part"
    dataset.table.to_parquet(aside)
    aside.replace(workdir / "dataset.parquet")
    dataset.quarantine.to_csv(workdir / "quarantine.csv", index=False)
    _write_json(workdir / "audit.json", audit_report | {"ignored": dataset.ignored})
    _write_json(workdir / "environment.json", environment())
    _write_text(workdir / "config.json", config_lib.to_json(config))


def environment() -> dict[str, Any]:
    """Describes where a run ran: Python, packages, platform, devices, command, git commit (None outside a checkout)."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "numpy",
        "pandas",
        "pillow",
        "opencv-python-headless",
        "imgclf",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    root = Path(__file__).resolve().parent.parent
    git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command": " ".join(sys.argv),
        "git": git.stdout.strip() if git.returncode == 0 else None,
    }


def _evaluate(
    config: ConfigDict,
    dataset: Dataset,
    fit: loop.Fit,
    eval_step: Any,
    mesh: Mesh,
    audit_report: dict[str, Any],
    console: Console,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluates the kept model on the split of the headline; returns the results and the table of predictions."""
    present = set(dataset.table["split"])
    split = next(name for name in (config.eval.split, "val", "train") if name in present)
    params, batch_stats = sharding.replicate((fit.params, fit.batch_stats), mesh)

    def logits_of(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total = int((dataset.table["split"] == name).sum())
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"evaluating {name}", total=total)
            rows, logits = evaluate_split(
                eval_step, params, batch_stats, dataset, config, name, mesh, lambda examples: bar.advance(task, examples)
            )
        return rows, logits, dataset.table["label"].to_numpy()[rows]

    rows, logits, labels = logits_of(split)
    val = None
    if "val" in present and (config.eval.temperature or config.eval.conformal):
        val = (logits, labels) if split == "val" else logits_of("val")[1:]
    probabilities, calibrated = confidence.calibrate(
        split,
        logits,
        labels,
        val,
        temperature=config.eval.temperature,
        alpha=config.eval.conformal,
        val_chose_epoch=fit.progress.best_value is not None,
    )
    results = {"split": split, **metrics.evaluate(probabilities, labels, dataset.class_names, index=rows), **calibrated}
    results |= {
        "steps": fit.steps,
        "train_seconds": round(fit.progress.seconds, 2),
        "params_sha256": fit.about["params_sha256"],
        "class_names": list(dataset.class_names),
        "checkpoint": f"checkpoints/{fit.progress.kept}",
        "best_metric": config.train.best_metric if fit.progress.best_value is not None else None,
        "best_value": fit.progress.best_value,
        "best_epoch": fit.progress.best_epoch,
        "notes": _notes(config, dataset, fit, split, audit_report),
    }
    ids = dataset.table["id"].to_numpy()[rows]
    return results, metrics.predictions(ids, probabilities, labels, dataset.class_names, config.eval.top_k)


def _notes(config: ConfigDict, dataset: Dataset, fit: loop.Fit, split: str, audit_report: dict[str, Any]) -> list[str]:
    """Honest remarks that belong beside the headline."""
    notes = []
    if split != config.eval.split:
        notes.append(f"There is no {config.eval.split} split; the score is on {split}.")
    if split == "val" and fit.progress.best_value is not None:
        notes.append("The val split also chose which epoch's parameters are kept, so that its score is optimistic.")
    if split == "train":
        notes.append("The score is on the training images themselves; it says nothing about new ones.")
    if fit.progress.stopped_early:
        notes.append(f"Stopped early: {numbers.count(config.train.early_stopping.patience, 'evaluation')} without improvement.")
    if audit_report["dropped"]:
        notes.append(
            f"{numbers.count(len(audit_report['dropped']), 'copy', 'copies')} of evaluation images dropped before training; see the audit."
        )
    if (relabeled := _relabeled(dataset)) > 0:
        notes.append(f"{numbers.count(relabeled, 'label')} corrected by config.data.label_patch; dataset.parquet keeps the original_class.")
    if len(dataset.quarantine):
        notes.append(f"{numbers.count(len(dataset.quarantine), 'file')} could not be used; see the quarantine.")
    return notes


def _relabeled(dataset: Dataset) -> int:
    table = dataset.table
    return int((table["class_name"] != table["original_class"]).sum()) if "original_class" in table else 0


def _write_text(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    aside.replace(path)


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
