"""A study's search: trials are judged on the val split, and the fields of the best become an arm that is compared on test over seeds.

    Study(base, arms={"base": {}}, seeds=5, search=Search({"optimizer.learning_rate": Range(1e-4, 1e-1, log=True)}, trials=30))

Optuna (Akiba et al., KDD 2019) proposes the trials and prunes them. It keeps a journal in the study's folder, so that a search that was
killed continues where it was.
"""

import dataclasses
import hashlib
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files
from imgclf.config import Config, validation
from imgclf.data.augment import policies
from imgclf.errors import UserError, missing_extra, nearest
from imgclf.runtime import parallel
from imgclf.studies import arms as arms_lib
from imgclf.studies.arms import Range, Space

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("asha", "none")
METRICS = {"val_loss": "loss", "val_top1": "top1"}  # and their names in results.json
JOURNAL = "search.journal"


@dataclasses.dataclass(frozen=True)
class Search:
    """What to try.

    Attributes:
      space: field → `Range`, or the values to choose from.
      trials: how many trials to make; a grid always tries all of its points.
      sampler: tpe (Bergstra et al., 2011), random, or grid (of values, not of Ranges).
      pruner: asha (Li et al., 2020: of the trials at one evaluation the best third goes on, the others end early) or none.
      metric: what trials are judged by, val_loss or val_top1.
      fields: config fields that every trial sets, beside those of the space.
      name: of the arm that the best trial makes.
      seed: of the proposals.

    Example:
      >>> from imgclf.studies import Range, Search
      >>> Search({"optimizer.learning_rate": Range(1e-4, 1e-1, log=True)}, trials=30).sampler
      'tpe'
    """

    space: Space
    trials: int = 20
    sampler: str = "tpe"
    pruner: str = "none"
    metric: str = "val_loss"
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = "found"
    seed: int = 0

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a trial; of values to choose from, Optuna keeps the place in the list."""
        return {name: point[name] if isinstance(values, Range) else values[point[name]] for name, values in self.space.items()}

    @property
    def identity(self) -> str:
        """A hash of what the proposals depend on. The number of trials is no part of it: more may follow later."""
        fields = {**dataclasses.asdict(self), "trials": None, "name": None}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Pruned(Exception):
    """Ends a trial whose evaluations on val promise too little."""


def check(search: Search, base: Config, arms: Mapping[str, Any], folds: int) -> None:
    """Checks a search before anything runs.

    Raises:
      UserError: for unknown names and fields, an empty space, a grid of ranges, a name that an arm has, folds, and where Optuna is missing.
    """
    for field, valid in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("metric", METRICS)):
        value = getattr(search, field)
        if value not in valid:
            raise UserError(f"The search's {field}={value!r} is unknown; {nearest(value, valid)}")
    if not search.space or search.trials < 1:
        raise UserError("The search has nothing to try; give it a space, such as {'optimizer.learning_rate': Range(1e-4, 1e-1, log=True)}.")
    ranges = [field for field, range_ in search.space.items() if isinstance(range_, Range)]
    if search.sampler == "grid" and ranges:
        raise UserError(f"The search's sampler='grid' needs values for {ranges[0]!r}, not a Range; write a tuple of them.")
    if search.name in arms:
        raise UserError(f"The search's name={search.name!r} is that of an arm; choose another.")
    if folds:
        raise UserError("A search judges trials on images that other folds test; leave the study's folds at 0, and give it seeds.")
    for end in (0, -1):  # the first and the last of every field's values
        values = {
            field: (values.low, values.high)[end] if isinstance(values, Range) else values[end] for field, values in search.space.items()
        }
        config = _config(search, base, values)
        validation.validate(config)
        policies.check(config)
    if base.data.split.method in ("stratified", "hash") and not base.data.split.fractions[1]:
        raise UserError("A search judges trials on the val split, and config.data.split.fractions leaves it no images; give it a share.")
    _optuna()


def run(search: Search, base: Config, workdir: Path, *, engine: str, jobs: int, console: Console) -> dict[str, Any]:
    """Runs the trials that are missing, in `workdir`/search.

    Args:
      search: what to try.
      base: the config that the trials change.
      workdir: the study's folder.
      engine, jobs: as in `parallel.backend`. TPE proposes as many trials at a time as run at a time.
      console: where the outcomes are told.

    Returns:
      `metric`, `fields` of the best trial, and `trials`: {number, state (complete, pruned, fail), value, fields, folder, error}.

    Raises:
      UserError: if every trial failed.
    """
    optuna = _optuna()
    study = _study(search, workdir)
    fixed = search.sampler != "tpe"  # all trials are known at the start
    if fixed and not study.get_trials(deepcopy=False):
        for point in _points(search):
            study.enqueue_trial(point)
    total = len(study.get_trials(deepcopy=False)) if fixed else search.trials
    distributions = {name: _distribution(values) for name, values in search.space.items()}
    states = optuna.trial.TrialState
    while True:
        # Trials that a kill has interrupted go on before new ones are proposed.
        waiting = [optuna.trial.Trial(study, trial._trial_id) for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,))]
        done = len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.FAIL)))
        together = total if fixed else max(1, jobs)
        waiting += [study.ask(distributions) for _ in range(min(together, total - done) - len(waiting))]
        if not waiting:
            return _found(search, study)
        work = []
        for trial in waiting:
            config = _config(search, base, search.values(trial.params))
            folder = Path("search") / _key(config)
            trial.set_user_attr("folder", str(folder))
            work.append(joblib.delayed(_run_trial)(search, trial.number, config, workdir.absolute(), folder, Path.cwd()))
        for number, value, state, error in parallel.each(work, engine, jobs, "search", console):
            trial = next(trial for trial in waiting if trial.number == number)
            trial.set_user_attr("error", error)
            study.tell(number, value, states[state])
            outcome = f"{search.metric} {value:.4f}" if value is not None else error or "pruned"
            fields = ", ".join(f"{name}={value}" for name, value in search.values(trial.params).items())
            console.print(f"trial {number}, {fields}: {outcome}", highlight=False, markup=False)


def _found(search: Search, study: Any) -> dict[str, Any]:
    """What `run` returns of a search whose trials are all done; `study` is Optuna's."""
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "fields": {**search.fields, **search.values(trial.params)},
            "folder": trial.user_attrs["folder"],
            "error": trial.user_attrs["error"],
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    if not complete:
        raise UserError(f"Every trial of the search failed; the first: {trials[0]['error']}")
    sign = 1 if search.metric == "val_loss" else -1
    best = min(complete, key=lambda trial: sign * trial["value"])
    return {"metric": search.metric, "best": best["number"], "fields": best["fields"], "trials": trials}


def _run_trial(
    search: Search, number: int, config: Config, workdir: Path, folder: Path, directory: Path
) -> tuple[int, float | None, str, str]:
    """Runs one trial from the folder `directory`; returns (number, value or None, Optuna's state, error or "")."""
    from imgclf.runtime import compilation_cache
    from imgclf.training import loop
    from imgclf.workflows import train

    os.chdir(directory)
    compilation_cache.enable()
    study = _study(search, workdir)
    trial = _optuna().trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def report(evaluation: int, values: Mapping[str, float]) -> None:
        trial.report(values[search.metric], evaluation)
        if trial.should_prune():
            raise Pruned

    try:
        results = train.train(
            config, workdir / folder, console=Console(quiet=True), on_evaluation=report if search.pruner != "none" else None
        )
    except (loop.Interrupted, KeyboardInterrupt):
        raise
    except Pruned:
        return number, None, "PRUNED", ""
    except UserError as error:
        return number, None, "FAIL", str(error)
    except Exception as error:  # reported with its place; the traceback is kept beside the run
        (workdir / folder).mkdir(parents=True, exist_ok=True)
        files.write_text(workdir / folder / "error.txt", traceback.format_exc())
        return number, None, "FAIL", f"{type(error).__name__}: {error} (see {workdir / folder / 'error.txt'})"
    if results["split"] != "val":
        return number, None, "FAIL", "The data have no val split, on which a trial is judged; give it a share in config.data.split."
    return number, float(results[METRICS[search.metric]]), "COMPLETE", ""


def _config(search: Search, base: Config, fields: Mapping[str, Any]) -> Config:
    """A trial's config: the model is scored on val, uncalibrated, and never on test."""
    config = base.copy_and_resolve_references()
    config_lib.override(config, {**search.fields, **fields})
    config.eval.split, config.eval.temperature, config.eval.conformal = "val", False, 0.0
    config.eval.explain = 0  # nobody opens the reports of all trials
    config.name = "trial"
    return config


def _key(config: Config) -> str:
    return hashlib.sha256(config_lib.to_json(config).encode()).hexdigest()[:12]


def _points(search: Search) -> list[dict[str, Any]]:
    """What a random search or a grid tries, as Optuna keeps it: of values to choose from, the place in the list."""
    if search.sampler == "grid":  # `check` has refused Ranges
        arms = arms_lib.grid({name: range(len(values)) for name, values in search.space.items() if not isinstance(values, Range)})
    else:
        places = {name: values if isinstance(values, Range) else range(len(values)) for name, values in search.space.items()}
        arms = arms_lib.draws(places, search.trials, search.seed)
    return [dict(fields) for fields in arms.values()]


def _study(search: Search, workdir: Path) -> Any:
    optuna = _optuna()
    backend = optuna.storages.journal.JournalFileBackend(str(workdir / JOURNAL))
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=search.identity,
        direction="minimize" if search.metric == "val_loss" else "maximize",
        sampler=optuna.samplers.TPESampler(seed=search.seed, constant_liar=True),
        pruner=pruner if search.pruner == "asha" else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )


def _distribution(values: Range | Sequence[Any]) -> Any:
    distributions = _optuna().distributions
    if not isinstance(values, Range):
        return distributions.CategoricalDistribution(tuple(range(len(values))))
    kind = distributions.IntDistribution if values.whole else distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise missing_extra("A search", "Optuna", "optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
