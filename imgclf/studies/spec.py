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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgclf import config as config_lib
from imgclf.config import Config, validation
from imgclf.errors import UserError, nearest
from imgclf.studies import arms as arms_lib
from imgclf.studies.arms import Arms
from imgclf.studies.search import Search


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

    base: Config
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
    config: Config

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


def configured(base: Config, arm: str, fields: Mapping[str, Any]) -> Config:
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
