"""A study: arms × seeds × folds of one experiment, on the same splits and the same order of the data, compared by paired statistics.

A study file has a docstring that asks the question, and

    from imgclf.studies import Study

    def get_study(argument: str = "") -> Study:
        return Study(base=config, arms={"none": {}, "flip": {"augment.flip": 0.5}}, baseline="none", seeds=5, folds=5)

Arms may also be a list of (name, fields), or be made by `product`, `levels`, `grid` and `draws` of `imgclf.studies`. A study may first
search for the values of some fields: see `Search` and `Range` there.

`imgclf study FILE.py[:ARGUMENT]` runs it. A study that was stopped continues with what is missing: a run's folder is named by the hash of
its config, so that renamed, added and removed arms cost only what is new.
"""

import dataclasses
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from imgclf import config as config_lib
from imgclf.config import Config, validation
from imgclf.data.augment import policies
from imgclf.errors import UserError, nearest
from imgclf.studies import arms as arms_lib
from imgclf.studies.arms import Arms, Fields
from imgclf.studies.search import Search


@dataclasses.dataclass(frozen=True, init=False)
class Study:
    """What to run.

    Attributes:
      base: the config that the arms change. Reports of runs explain no mistakes, unless an arm sets eval.explain.
      arms: name → config fields that the arm sets, such as {"optimizer.learning_rate": 0.01}; a list of (name, fields) is taken, too.
      baseline: the arm that the others are compared with; "" = the first.
      seeds: how many. Seed s sets `config.seed` to s in every arm, so that arms of one seed share the order of the data and the draws of
        augmentation. Arms are compared over two or more seeds, or over folds.
      folds: with 2 or more, each seed deals the images into that many folds of its own, and tests each image once; 0 = the base's own
        split in every seed.
      question: what the study is to answer; the study file's docstring where it is "".
      search: fields to be found on the val split; the best of them make one more arm.

    Raises:
      UserError: if there are no arms, or two of one name.

    Example:
      >>> from imgclf.studies import Study
      >>> study = Study(imgclf.load_config("folder:photos"), {"plain": {}, "flip": {"augment.flip": 0.5}}, seeds=2, folds=5)
      >>> study.baseline, list(study.arms)
      ('plain', ['plain', 'flip'])
    """

    base: Config
    arms: Mapping[str, Fields]
    baseline: str
    seeds: int
    folds: int
    question: str
    search: Search | None

    def __init__(
        self,
        base: Config,
        arms: Arms,
        baseline: str = "",
        seeds: int = 5,
        folds: int = 0,
        question: str = "",
        search: Search | None = None,
    ):
        named = arms_lib.named(arms)
        if not named:
            raise UserError("The study has no arms; give it one, such as arms={'base': {}}.")
        fields = {"base": base, "arms": named, "baseline": baseline or next(iter(named)), "seeds": seeds, "folds": folds}
        for name, value in (fields | {"question": question, "search": search}).items():
            object.__setattr__(self, name, value)  # the study is frozen


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed on one fold (0 without folds)."""

    arm: str
    seed: int
    fold: int
    config: Config

    @property
    def key(self) -> str:
        """A hash of all that the run's result depends on: the config without its name, and without what only its report shows."""
        fields = {name: value for name, value in config_lib.flatten(self.config).items() if name not in ("name", "eval.explain")}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Where the run lies in the study's folder."""
        return f"runs/{self.key}"


def load(argument: str) -> Study:
    """Reads a study file, FILE.py or FILE.py:ARGUMENT.

    Raises:
      UserError: if there is no such file, it isn't Python, or it defines no study.
    """
    file, _, rest = argument.partition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"There is no study file {file!r} in {Path.cwd()}: check the path; {_files_like(path)}")
    arms_lib.check_literals(path)
    module = _imported(path)
    if not hasattr(module, "get_study"):
        raise UserError(f"{file} defines no study: write get_study() in it, which returns an imgclf.studies.Study.")
    takes_argument = bool(inspect.signature(module.get_study).parameters)
    if rest and not takes_argument:
        raise UserError(f"get_study() in {file} takes no argument, and {rest!r} is given; leave it out, or give get_study a parameter.")
    study = module.get_study(rest) if rest else module.get_study()
    if not isinstance(study, Study):
        raise UserError(f"get_study() in {file} returns {type(study).__name__}, not an imgclf.studies.Study.")
    _check_files(study, file, takes_argument)
    return study if study.question else dataclasses.replace(study, question=inspect.cleandoc(module.__doc__ or ""))


def _files_like(path: Path) -> str:
    """Names the Python files beside a path that isn't there."""
    there = sorted(str(other) for other in path.parent.glob("*.py"))
    return nearest(str(path), there) if there else f"{path.parent} has no Python files."


def _check_files(study: Study, file: str, takes_argument: bool) -> None:
    """Raises a UserError for data and weights that are not there, before a run of every arm fails of it, and says how to name others."""
    for arm, fields in study.arms.items():
        config = configured(study.base, arm, fields)
        path, weights = config.data.path, config.model.weights.removeprefix("path:")
        if config.data.source in ("folder", "csv") and path and not Path(path).expanduser().exists():
            way_out = f"give their place after a colon, {file}:DATA" if takes_argument else f"set config.data.path in {file}"
            raise UserError(f"The study's data are not there: {path!r}, from {Path.cwd()}; {way_out}.")
        if weights != config.model.weights and not Path(weights).expanduser().exists():
            way_out = f"name others after a colon, {file}:DATA,weights=PLACE" if takes_argument else f"set model.weights in {file}"
            raise UserError(f"The study's weights are not there: {weights!r}, from {Path.cwd()}; {way_out}.")


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not Python: a study file's name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(study: Study) -> list[Run]:
    """Lists the study's runs, seed by seed, so that a study that is stopped early has whole seeds of every arm.

    Raises:
      UserError: for an unknown field, a value of the wrong type, a baseline that is no arm, arms that are the same, too few seeds, and data
        that are not there.
    """
    if study.baseline not in study.arms:
        raise UserError(f"The study's baseline {study.baseline!r} is none of its arms; {nearest(study.baseline, study.arms)}")
    if study.seeds < 1 or study.folds < 0 or study.folds == 1:
        raise UserError(f"A study needs 1 or more seeds and 0, 2 or more folds; this one has {study.seeds} and {study.folds}.")
    if study.seeds == 1 and not study.folds and len(study.arms) + bool(study.search) > 1:
        raise UserError(
            "The study compares arms on one seed, on which chance can't be told from a difference; give it seeds=2 or more, or folds."
        )
    configs = {arm: configured(study.base, arm, fields) for arm, fields in study.arms.items()}
    listed = []
    for seed in range(study.seeds):
        for fold in range(max(1, study.folds)):
            for arm, config in configs.items():
                own = config.copy_and_resolve_references()
                own.seed = seed
                if "eval.explain" not in study.arms[arm]:
                    own.eval.explain = 0  # nobody opens the reports of all runs, and a page of mistakes costs features of 2,000 images
                if study.folds:
                    own.data.split.update(method="kfold", folds=study.folds, fold=fold, seed=seed)
                validation.validate(own)
                policies.check(own)
                listed.append(Run(arm, seed, fold, own))
    same: dict[str, str] = {}
    for run in listed:
        other = same.setdefault(run.key, run.arm)
        if other != run.arm:
            raise UserError(f"The study's arms {other!r} and {run.arm!r} have the same config; remove one.")
    return listed


def configured(base: Config, arm: str, fields: Fields) -> Config:
    """The config of an arm.

    Raises:
      UserError: for an unknown field, and a value of the wrong type.
    """
    config = base.copy_and_resolve_references()
    try:
        config_lib.override(config, fields)
    except UserError as error:
        raise UserError(f"The study's arm {arm!r}: {error}") from None
    config.name = arm
    return config
