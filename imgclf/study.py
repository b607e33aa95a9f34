"""A study: arms × seeds × folds of one experiment, on the same splits and the same order of the data, compared by paired statistics.

A study file has a docstring that asks the question, and

    def get_study(argument: str = "") -> Study:
        return Study(base=config, arms={"none": {}, "flip": {"augment.flip": 0.5}}, baseline="none", seeds=5, folds=5)

Arms may also be a list of (name, fields), or come from `imgclf.arms`: `product`, `levels`, `grid`, `draws`. A study may search: see
`imgclf.search`.

`python run.py --study=FILE.py[:ARGUMENT] [--workdir=DIR] [--engine=ray|dask] [--jobs=N]` runs it. A study that was stopped continues with
what is missing: a run's folder is named by the hash of its config, so that renamed, added and removed arms cost only what is new.
"""

import dataclasses
import hashlib
import importlib.util
import inspect
import json
import os
import shlex
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
from ml_collections import ConfigDict
from rich.console import Console

from imgclf import arms as arms_lib
from imgclf import config as config_lib
from imgclf import findings, parallel, run_folder, validation
from imgclf import search as search_lib
from imgclf.arms import Arms
from imgclf.errors import UserError, nearest
from imgclf.evaluation import numbers
from imgclf.search import Search

ENGINES = {"local": "processes", "ray": "ray", "dask": "dask"}  # as they are called in parallel.py


@dataclasses.dataclass(frozen=True)
class Study:
    """What to run.

    Attributes:
      base: the config that the arms change.
      arms: name → config fields that it sets, such as {"optimizer.learning_rate": 0.01}; or a list of (name, fields).
      baseline: the arm that the others are compared with; "" = the first.
      seeds: how many; seed s sets `seed` to s in every arm, so that arms of one seed share the order of the data and what augmentation
        draws. Arms are compared over 2 or more, or over folds.
      folds: with 2 or more, each seed deals the images into that many folds of its own, and tests each image once; 0: the base's own
        split in every seed.
      question: what the study is to answer; the study file's docstring where it is "".
      search: fields to be found on the val split; the best of them make one more arm.
    """

    base: ConfigDict
    arms: Arms
    baseline: str = ""
    seeds: int = 5
    folds: int = 0
    question: str = ""
    search: Search | None = None

    def __post_init__(self) -> None:
        arms = arms_lib.named(self.arms)
        if not arms:
            raise UserError("The study has no arms; give it one, such as arms={'base': {}}.")
        object.__setattr__(self, "arms", arms)
        object.__setattr__(self, "baseline", self.baseline or next(iter(arms)))


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
    arms_lib.check_literals(path)
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
    if study.seeds == 1 and not study.folds and len(study.arms) + bool(study.search) > 1:
        raise UserError("The study compares arms on one seed, whose chance would pass for theirs; give it seeds=2 or more, or folds.")
    configs = {arm: configured(study.base, arm, fields) for arm, fields in study.arms.items()}
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


def configured(base: ConfigDict, arm: str, fields: Mapping[str, Any]) -> ConfigDict:
    """The config of an arm.

    Raises:
      UserError: for an unknown field, and a value of the wrong type.
    """
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
    if study.search is not None:
        search_lib.check(study.search, study.base, study.arms, study.folds)
    _check_same_study(study, listed, workdir)
    searched = None
    if study.search is not None:
        searched = search_lib.run(study.search, study.base, workdir, engine=ENGINES[engine], jobs=jobs, console=console)
        study = _with_found(study, searched["fields"], console)
        listed = runs(study)
    missing = [one for one in listed if not (workdir / one.folder / "results.json").exists()]
    console.print(
        f"{len(study.arms)} arms × {numbers.count(study.seeds, 'seed')} × {numbers.count(max(1, study.folds), 'fold')} = "
        f"{len(listed)} runs, {len(listed) - len(missing)} of them done.",
        highlight=False,
    )
    failures = []
    work = [joblib.delayed(_run_one)(one, (workdir / one.folder).absolute(), Path.cwd()) for one in missing]
    for one, error, headline in parallel.each(work, ENGINES[engine], jobs, "study", console):
        console.print(f"{one.arm}, seed {one.seed}, fold {one.fold}: {error or headline}", highlight=False, markup=False)
        if error:
            failures.append({"arm": one.arm, "seed": one.seed, "fold": one.fold, "error": error})
    failed = {failure["arm"] for failure in failures}
    complete = [arm for arm in study.arms if arm not in failed]
    table = findings.table([one for one in listed if one.arm in complete], workdir)
    summary = findings.summary(study, complete, table, failures) | ({"search": searched} if searched else {})
    workdir.mkdir(parents=True, exist_ok=True)
    run_folder.write_text(workdir / "study.csv", table.drop(columns="correct", errors="ignore").to_csv(index=False))
    if summary["best"]:
        best = configured(study.base, f"{workdir.name}-best", study.arms[summary["best"]["arm"]])
        run_folder.write_text(workdir / "best.json", config_lib.to_json(best))
        summary["best"]["command"] = f"python run.py --config={shlex.quote(str(workdir / 'best.json'))}"
    run_folder.write_json(workdir / "study.json", summary)
    page = study_page.write(workdir, summary, table)
    for line in findings.describe(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Page: {page}", highlight=False, soft_wrap=True)
    return summary


def _with_found(study: Study, fields: Mapping[str, Any], console: Console) -> Study:
    """The study with the search's arm, unless it is one that is there."""
    found = Run("", 0, 0, configured(study.base, study.search.name, fields))
    for arm, own in study.arms.items():
        if Run("", 0, 0, configured(study.base, arm, own)).key == found.key:
            console.print(f"The search found nothing better than the arm {arm!r}.", highlight=False, markup=False)
            return study
    return dataclasses.replace(study, arms={**study.arms, study.search.name: fields})


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


def _check_same_study(study: Study, listed: list[Run], workdir: Path) -> None:
    """Refuses the folder of another study, told by its data, its base, or that no run is shared; else notes what study this one is."""
    about = {
        "question": study.question,
        "data": findings.data_of(study.base),
        "base": json.loads(config_lib.to_json(study.base)),
        "runs": sorted({one.key for one in listed}),
    }
    saved = workdir / "about.json"
    if saved.exists():
        old = json.loads(saved.read_text())
        if old["data"] != about["data"]:
            raise UserError(f"{workdir} holds a study of other data ({old['data']}, not {about['data']}); choose another --workdir.")
        changed = config_lib.changes(config_lib.from_json(json.dumps(old["base"])), study.base)
        if changed:
            told = "; ".join(f"config.{name} was {before!r}, now {now!r}" for name, (before, now) in changed.items())
            raise UserError(f"{workdir} holds a study with another base: {told}. Choose another --workdir, or give the old values back.")
        if old["question"] != about["question"] and not set(old["runs"]) & set(about["runs"]):
            asked = old["question"].partition("\n")[0]
            raise UserError(f"{workdir} holds another study ({asked!r}), which shares no run with this one; choose another --workdir.")
        about["runs"] = sorted({*old["runs"], *about["runs"]})
    workdir.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(saved, about)
