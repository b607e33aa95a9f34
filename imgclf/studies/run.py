"""Runs a study: the runs that are missing, then its summary and its page."""

import dataclasses
import json
import os
import shlex
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, formatting
from imgclf.errors import UserError, nearest
from imgclf.runtime import parallel
from imgclf.studies import search as search_lib
from imgclf.studies import summary as summary_lib
from imgclf.studies.spec import Run, Study, configured, runs
from imgclf.workflows import checks

ENGINES = {"local": "processes", "ray": "ray", "dask": "dask"}  # as they are called in parallel.py


def run(study: Study, workdir: Path, *, engine: str = "local", jobs: int = 1, console: Console | None = None) -> summary_lib.Summary:
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
    searched, search = None, study.search
    checks.check_apart(study.base, workdir, "--workdir")
    if search is not None:
        search_lib.check(search, study.base, study.arms, study.folds)
    _check_same_study(study, listed, workdir)
    if search is not None:
        searched = search_lib.run(search, study.base, workdir, engine=ENGINES[engine], jobs=jobs, console=console)
        study = _with_found(study, search.name, searched["fields"], console)
        listed = runs(study)
    missing = [one for one in listed if not (workdir / one.folder / "results.json").exists()]
    console.print(
        f"{len(study.arms)} arms × {formatting.count(study.seeds, 'seed')} × {formatting.count(max(1, study.folds), 'fold')} = "
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
    table = summary_lib.table([one for one in listed if one.arm in complete], workdir)
    summary = summary_lib.Summary(summary_lib.summarize(study, complete, table, failures) | ({"search": searched} if searched else {}))
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_text(workdir / "study.csv", table.drop(columns="correct", errors="ignore").to_csv(index=False))
    if summary["best"]:
        best = configured(study.base, f"{workdir.name}-best", study.arms[summary["best"]["arm"]])
        files.write_text(workdir / "best.json", config_lib.to_json(best))
        summary["best"]["command"] = f"imgclf train {shlex.quote(str(workdir / 'best.json'))}"
    files.write_json(workdir / "study.json", summary)
    page = study_page.write(workdir, summary, table)
    for line in summary_lib.describe(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Page: {page}", highlight=False, soft_wrap=True)
    return summary


def _with_found(study: Study, name: str, fields: Mapping[str, Any], console: Console) -> Study:
    """The study with the arm that the search has found, unless the study has that arm already."""
    found = Run("", 0, 0, configured(study.base, name, fields))
    for arm, own in study.arms.items():
        if Run("", 0, 0, configured(study.base, arm, own)).key == found.key:
            console.print(f"The search found nothing better than the arm {arm!r}.", highlight=False, markup=False)
            return study
    return dataclasses.replace(study, arms={**study.arms, name: fields})


def _run_one(one: Run, folder: Path, directory: Path) -> tuple[Run, str, str]:
    """Runs one experiment from `directory`; returns (run, error or "", headline). An error of one run doesn't end the others."""
    from imgclf.evaluation import metrics
    from imgclf.runtime import compilation_cache
    from imgclf.training import loop
    from imgclf.workflows import train

    os.chdir(directory)  # a worker of a cluster starts elsewhere, and the data's path may be relative
    compilation_cache.enable()
    try:
        results = train.train(one.config, folder, console=Console(quiet=True))
    except (loop.Interrupted, KeyboardInterrupt):
        raise
    except UserError as error:
        return one, str(error), ""
    except Exception as error:  # reported with its place; the traceback is kept beside the run
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / "error.txt", traceback.format_exc())
        return one, f"{type(error).__name__}: {error} (see {folder / 'error.txt'})", ""
    return one, "", metrics.headline(results)


def _check_same_study(study: Study, listed: list[Run], workdir: Path) -> None:
    """Notes in the folder which study this is.

    Raises:
      UserError: for the folder of another study, which is one of other data, of another base, or of another question and no common run.
    """
    about = {
        "question": study.question,
        "data": summary_lib.data_of(study.base),
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
    files.write_json(saved, about)
