"""A study: arms × seeds × folds of one experiment, on the same splits and the same order of the data, compared by paired statistics.

A study file has a docstring that asks the question, and

    def get_study(argument: str = "") -> Study:
        return Study(base=config, arms={"none": {}, "flip": {"augment.flip": 0.5}}, baseline="none", seeds=5, folds=5)

`python run.py --study=FILE.py[:ARGUMENT] [--workdir=DIR] [--engine=ray|dask] [--jobs=N]` runs it. A study that was stopped continues with
what is missing: a run's folder is named by the hash of its config, so that renamed, added and removed arms cost only what is new.
"""

import dataclasses
import hashlib
import importlib.util
import inspect
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imgclf import config as config_lib
from imgclf import parallel, run_folder, validation
from imgclf.errors import UserError, nearest
from imgclf.evaluation import compare, numbers

ENGINES = {"local": "processes", "ray": "ray", "dask": "dask"}  # as they are called in parallel.py


@dataclasses.dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
      base: the config that the arms change.
      arms: name → config fields that it sets, such as {"optimizer.learning_rate": 0.01}.
      baseline: the arm that the others are compared with.
      seeds: how many; seed s sets `seed` to s in every arm, so that arms of one seed share the order of the data.
      folds: with 2 or more, each seed deals the images into that many folds of its own, and tests each image once; 0: the base's own
        split in every seed.
      question: what the study is to answer; the study file's docstring where it is "".
    """

    base: ConfigDict
    arms: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: int = 5
    folds: int = 0
    question: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed on one fold (0 without folds)."""

    arm: str
    seed: int
    fold: int
    config: ConfigDict

    @property
    def key(self) -> str:
        """Of what the run's result depends on: the config but for its name."""
        fields = {name: value for name, value in config_lib.flatten(self.config).items() if name != "name"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Where the run lies in the study's folder."""
        return f"runs/{self.key}"


def load(argument: str) -> Study:
    """Reads a study file, FILE.py or FILE.py:ARGUMENT.

    Raises:
      UserError: if there is no such file, or it defines no study.
    """
    file, _, rest = argument.partition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"There is no study file {file!r}; give one such as experiments/transfer.py.")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_study"):
        raise UserError(f"{file} defines no get_study(); see the docstring of imgclf/study.py.")
    study = module.get_study(rest) if rest else module.get_study()
    return study if study.question else dataclasses.replace(study, question=inspect.cleandoc(module.__doc__ or ""))


def runs(study: Study) -> list[Run]:
    """Lists the study's runs, seed by seed, so that a study stopped early has whole seeds of every arm.

    Raises:
      UserError: for an unknown field, a value of the wrong type, a baseline that is no arm, arms that are the same, too few seeds.
    """
    if study.baseline not in study.arms:
        raise UserError(f"The study's baseline {study.baseline!r} is none of its arms; {nearest(study.baseline, study.arms)}")
    if study.seeds < 1 or study.folds < 0 or study.folds == 1:
        raise UserError(f"A study needs 1 or more seeds and 0, 2 or more folds; this one has {study.seeds} and {study.folds}.")
    configs = {arm: _configured(study.base, arm, fields) for arm, fields in study.arms.items()}
    listed = []
    for seed in range(study.seeds):
        for fold in range(max(1, study.folds)):
            for arm, config in configs.items():
                own = config.copy_and_resolve_references()
                own.seed = seed
                if study.folds:
                    own.data.split.update(method="kfold", folds=study.folds, fold=fold, seed=seed)
                validation.validate(own)
                listed.append(Run(arm, seed, fold, own))
    same: dict[str, str] = {}
    for run in listed:
        other = same.setdefault(run.key, run.arm)
        if other != run.arm:
            raise UserError(f"The study's arms {other!r} and {run.arm!r} have the same config; remove one.")
    return listed


def _configured(base: ConfigDict, arm: str, fields: Mapping[str, Any]) -> ConfigDict:
    config = base.copy_and_resolve_references()
    for name, value in fields.items():
        config_lib.check_field(name)
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise UserError(f"The study's arm {arm!r} sets config.{name}={value!r}, which has the wrong type: {error}.") from None
    config.name = arm
    return config


def run(study: Study, workdir: Path, *, engine: str = "local", jobs: int = 1, console: Console | None = None) -> dict[str, Any]:
    """Runs what is missing, and writes study.json, study.csv and study.html into `workdir`.

    Args:
      engine: where the runs are made: "local" (this machine), or a cluster that sees the same files: "ray" (the one that RAY_ADDRESS names,
        else one started here) or "dask" (the scheduler that DASK_SCHEDULER_ADDRESS names, else likewise).
      jobs: runs at a time; 1 with the local engine = in this process.

    Returns:
      the contents of study.json: `arms` (accuracies with intervals, cost), `comparisons` with the baseline, `failures`.

    Raises:
      UserError: for a study that can't be run, or a folder that holds another one.
    """
    from imgclf.reporting import study_page

    console = console or Console(soft_wrap=True)
    if engine not in ENGINES:
        raise UserError(f"--engine={engine!r} is unknown; {nearest(engine, ENGINES)}")
    listed = runs(study)
    _check_same_study(study, workdir)
    missing = [one for one in listed if not (workdir / one.folder / "results.json").exists()]
    console.print(
        f"{len(study.arms)} arms × {numbers.count(study.seeds, 'seed')} × {numbers.count(max(1, study.folds), 'fold')} = "
        f"{len(listed)} runs, {len(listed) - len(missing)} of them done.",
        highlight=False,
    )
    failures = []
    work = (joblib.delayed(_run_one)(one, (workdir / one.folder).absolute(), Path.cwd()) for one in missing)
    bar = Progress(
        TextColumn("study"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar, parallel.backend(ENGINES[engine] if missing else "threads", jobs):
        task = bar.add_task("study", total=len(missing))
        return_as = "list" if engine == "ray" else "generator_unordered"  # Ray's back end tells of all runs at the end
        for one, error, headline in joblib.Parallel(return_as=return_as)(work):
            bar.advance(task)
            console.print(f"{one.arm}, seed {one.seed}, fold {one.fold}: {error or headline}", highlight=False, markup=False)
            if error:
                failures.append({"arm": one.arm, "seed": one.seed, "fold": one.fold, "error": error})
    failed = {failure["arm"] for failure in failures}
    complete = [arm for arm in study.arms if arm not in failed]
    table = _table([one for one in listed if one.arm in complete], workdir)
    summary = _summary(study, complete, table, failures)
    workdir.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(workdir / "study.csv", table.drop(columns="correct").to_csv(index=False))
    run_folder.write_json(workdir / "study.json", summary)
    page = study_page.write(workdir, summary, table)
    for line in describe(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Page: {page}", highlight=False, soft_wrap=True)
    return summary


def _run_one(one: Run, folder: Path, directory: Path) -> tuple[Run, str, str]:
    """Runs one experiment from `directory`; returns (run, error or "", headline). An error of one run doesn't end the others."""
    from imgclf import compilation_cache, experiment
    from imgclf.evaluation import metrics
    from imgclf.training import loop

    os.chdir(directory)  # a worker of a cluster starts elsewhere, and the data's path may be relative
    compilation_cache.enable()
    try:
        results = experiment.run(one.config, folder, Console(quiet=True))
    except (loop.Interrupted, KeyboardInterrupt):
        raise
    except UserError as error:
        return one, str(error), ""
    except Exception as error:  # reported with its place; the traceback is kept beside the run
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_text(folder / "error.txt", traceback.format_exc())
        return one, f"{type(error).__name__}: {error} (see {folder / 'error.txt'})", ""
    return one, "", metrics.headline(results)


def _check_same_study(study: Study, workdir: Path) -> None:
    saved = workdir / "study.json"
    if not saved.exists():
        return
    old = json.loads(saved.read_text())["data"]
    new = _data(study)
    if old != new:
        raise UserError(f"{workdir} holds a study of other data ({old}, not {new}); choose another --workdir.")


def _data(study: Study) -> str:
    data = study.base.data
    return f"{data.source}:{data.path or data.tfds.name}"


def _table(listed: list[Run], workdir: Path) -> pd.DataFrame:
    """A row per run: arm, seed, fold, folder, n, top1, train_seconds, params_trainable; `correct`: id → whether it was right."""
    rows = []
    for one in listed:
        folder = workdir / one.folder
        results = json.loads((folder / "results.json").read_text())
        predictions = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
        correct = dict(zip(predictions["id"], predictions["predicted"] == predictions["true"], strict=True))
        about = {name: results[name] for name in ("n", "top1", "loss", "train_seconds", "params_trainable")}
        place = {"arm": one.arm, "seed": one.seed, "fold": one.fold, "folder": one.folder}
        rows.append(place | about | {"correct": correct})
    return pd.DataFrame(rows)


def _summary(study: Study, complete: list[str], table: pd.DataFrame, failures: list[dict[str, Any]]) -> dict[str, Any]:
    correct = _correct(table)
    arms = {}
    for arm in complete:
        own = table[table["arm"] == arm]
        arms[arm] = compare.accuracy(correct[arm]) | {
            "fields": dict(study.arms[arm]),
            "train_seconds": float(own["train_seconds"].sum() / study.seeds),
            "params_trainable": int(own["params_trainable"].iloc[0]),
        }
    return {
        "question": study.question,
        "data": _data(study),
        "seeds": study.seeds,
        "folds": study.folds,
        "baseline": study.baseline,
        "arms": arms,
        "comparisons": compare.to_baseline(correct, study.baseline) if study.baseline in correct else {},
        "failures": failures,
    }


def _correct(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Arm → bool [seeds, images]: the images that every seed of every arm was tested on, in the order of their ids."""
    tested: dict[tuple[str, int], dict[str, bool]] = {}
    for arm, seed, correct in zip(table["arm"], table["seed"], table["correct"], strict=True):
        tested.setdefault((arm, seed), {}).update(correct)
    common = sorted(set.intersection(*map(set, tested.values()))) if tested else []
    arms: dict[str, list[list[bool]]] = {}
    for (arm, _), correct in sorted(tested.items()):
        arms.setdefault(arm, []).append([correct[name] for name in common])
    return {arm: np.array(rows, bool) for arm, rows in arms.items()}


def describe(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yields the findings as sentences; a difference that the data can't support is said to be a tie."""
    for arm, row in summary["arms"].items():
        spread = f", ± {numbers.percent(row['seed_sd'])} between seeds" if row["seed_sd"] is not None else ""
        yield (
            f"{arm}: {numbers.percent(row['top1'])} (95 % interval {numbers.interval(row['top1_ci95'])}, "
            f"{row['images']:,} images{spread}; {numbers.duration(row['train_seconds'])} of training a seed)"
        )
    for arm, row in summary["comparisons"].items():
        low, high = row["difference_ci95"]
        points = f"{100 * row['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}; p = {row['p_holm']:.2g})"
        needed = f", {row['images_needed']:,} images would be needed to tell" if row["tie"] and row["images_needed"] else ""
        yield f"{arm} against {summary['baseline']}: {points}{': a tie' + needed if row['tie'] else ''}."
    for failure in summary["failures"]:
        yield f"FAILED {failure['arm']}, seed {failure['seed']}, fold {failure['fold']}: {failure['error']}"
