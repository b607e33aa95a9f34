"""`imgclf.create`: from labeled images and a few wishes to an ordinary config, whose run gives the classifier."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import errors, formatting
from imgclf.config import Config, validation
from imgclf.config.fields import DataConfig
from imgclf.data import audit, splits
from imgclf.data.table import Dataset, check_two_classes, decoded_by
from imgclf.deploy import scoring
from imgclf.deploy.classifier import Classifier, load
from imgclf.deploy.items import Data
from imgclf.errors import UserError, nearest
from imgclf.evaluation import open_set
from imgclf.files import cache_dir, path_of
from imgclf.models import forms, registry
from imgclf.models.weights import choice as weights_choice
from imgclf.models.weights import pretrained
from imgclf.remote import mirror, places
from imgclf.reporting import notebook
from imgclf.runtime import compilation_cache
from imgclf.workflows import budget, checks, preprocessing, run_folder, scenes, train
from imgclf.workflows import time_limit as time_limits

FROM_SCRATCH_MODEL = "resnet50"  # where weights="none" and no model is named
SMALL_MODEL = "cnn"  # where nothing is named, and no weights can be had
METHODS = ("auto", "probe", "lp_ft", "fit")

# Fine-tuning below these is seldom better than a probe, and on a CPU it takes hours above them already.
FINE_TUNE_PER_CLASS, FINE_TUNE_ON_CPU = 50, 5000
FEW_SHOT = (
    3  # images of the middle class, up to which class means are ahead of a logistic probe by 4 to 15 points; level at 5, behind at 10
)
VAL, VAL_UNITS = 0.1, 10  # share of the training images that validates where epochs are chosen; a class of fewer has none to spare
# Folds of a probe's estimate. Each head that is judged lacks one, which costs the accuracy that so many more photos would bring: with 133
# scenes, five folds are a point lower than ten (experiments/README.md, "Scenes"). With many photos that is little, and heads are dear.
FOLDS, FOLDS_OF_MANY, MANY = 10, 5, 1000
_FINE_TUNING = {
    "augment.crop_scale": (0.5, 1.0),
    "augment.flip": 0.5,
    "train.log_every": "1 epochs",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.01,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "10%",
}
_FAST = 5e-4  # the learning rate for MobileNetV2, the only family that was measured: 8 points over its probe, where 1e-4 stays at it
FROM_SCRATCH = {  # as configs/folder.py, for any model
    "augment.crop_scale": (0.4, 1.0),
    "augment.flip": 0.5,
    "augment.rotate": 15.0,
    "train.duration": "30 epochs",
    "train.log_every": "1 epochs",
    "train.label_smoothing": 0.1,
    "optimizer.learning_rate": 2e-3,
    "optimizer.weight_decay": 0.05,
    "optimizer.schedule.name": "cosine",
    "optimizer.schedule.warmup": "5%",
}
SMALL = {"data.image_size": (96, 96), "model.cnn.widths": (32, 64, 128, 128), "model.cnn.maps_dropout": 0.3}  # likewise


def create(  # noqa: PLR0913  (options by name)
    data: Data,
    *,
    model: str | None = None,
    weights: str | None = None,
    method: str = "auto",
    time_limit: str | float | None = None,
    workdir: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> Classifier:
    """Trains a classifier on labeled images, evaluates it by cross-validation or on images that it puts aside, and writes a report.

        classifier = imgclf.create(train)
        classifier = imgclf.create(train, model="squeezenet1_1")  # small and quick
        classifier = imgclf.create(train, weights="path:mobilenet_v2.h5")  # without a network; the model is told from the file
        classifier = imgclf.create(train, time_limit="10 minutes")  # tries more than a probe; see classifier.leaderboard()
        classifier = imgclf.create(train, method="lp_ft", config={"train.duration": "20 epochs", "seed": 1})

    What it chooses where you leave the choice to it, and why, is described at `settle`.

    Args:
      data: images of two or more classes, such as `imgclf.load_images` returns. Rows whose split is val or test are used as that; all
        others are trained on.
      model: one that `imgclf models` lists; None = the one that `weights` belong to, or that of the weights that are chosen.
      weights: as `config.model.weights`: a published name, "path:FILE", or "none"; None = those with the best published linear
        probe, within a budget and with a licence that allows commercial use, of those that can be had now (`models.weights.choice`).
      method: auto | probe | lp_ft (a probe first, then fine-tuning from it: Kumar et al., 2022) | fit.
      time_limit: such as "10 minutes", "90 s", or a number of seconds: a probe comes first, which is a finished run at once; then, as long
        as there is time, what may be better, each kept only if images that neither has seen say so (`budget.search`). With a method that
        trains the network: training that is not done by then ends where it is. None = what `settle` chooses, however long it takes.
      workdir: the run's folder, or its URL; None = a fresh one under runs/, in a notebook under runs/ in imgclf's cache, so that nothing
        lies about beside the notebook; it is told. A run that was interrupted continues in its folder.
      config: any other fields of the config, such as {"augment.rotate": 15.0}.
      verbose: whether to show what happens.

    Returns:
      The classifier, as `imgclf.load` of the run's folder gives it.

    Raises:
      UserError: for anything that the caller can mend, such as data of one class, an unknown model, or weights that can't be fetched.

    Example:
      >>> tiny = {"data.image_size": 32, "eval.explain": 0}
      >>> small = imgclf.create(train, model="mobilenet_v2_tiny", method="probe", config=tiny, verbose=False)
      >>> small.class_names, small.folder.parent.name
      (('blue', 'green', 'red'), 'runs')
      >>> imgclf.create(train, model="mobilenet_v3")
      Traceback (most recent call last):
      imgclf.errors.UserError: ...mobilenet_v3...
    """
    console = Console(quiet=not verbose, soft_wrap=True)
    read_as = None if isinstance(data, Dataset) else getattr(data, "fields", None)
    dataset = scoring.need_dataset(data, "create")
    for name, value in (("model", model), ("weights", weights), ("method", method)):
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"create({name}={value!r}) is no name: `imgclf models` lists the models and weights, methods are {', '.join(METHODS)}."
            )
    if config is not None and not isinstance(config, Mapping):
        raise UserError(f'create(config={config!r}) holds no fields: give a dict, such as {{"train.duration": "20 epochs"}}.')
    place: Path | str | None = None
    if workdir is not None:
        at_url = isinstance(workdir, str) and places.is_url(workdir)
        place = str(workdir) if at_url else path_of(workdir, "the run's folder, workdir,")
    seconds = None if time_limit is None else time_limits.seconds(time_limit)
    if seconds is not None and method == "auto":
        method = "fit" if _model(model, weights)[1] == "none" else "probe"
    with errors.under_names({"config.model.name": "model", "config.model.weights": "weights"}):
        choice = settle(dataset, read_as, model=model, weights=weights, method=method, overrides=config)
        console.print(choice.why, highlight=False, markup=False, soft_wrap=True)
        checks.check_workdir(choice.config, place)
        _fetch(choice.config)
    compilation_cache.enable()
    if seconds is not None:
        with _folder(choice.config.name, place, console) as folder:
            # the rate of any model, as what is fine-tuned may be another than the first
            recipe = {name: value for name, value in _FINE_TUNING.items() if name not in (config or {})}
            budget.search(budget.Asked(choice.config, choice.dataset, config or {}, recipe), folder, seconds, console)
        return load(folder)
    run, tried = choice.config, list[dict[str, Any]]()
    dataset = decoded_by(choice.dataset, run.data)
    find_scenes = scenes.once(scenes.finder(run, console))  # by the weights' own view, whichever is chosen
    if method == "auto" and preprocessing.is_free(run, config or {}):
        run, tried = preprocessing.select(run, dataset, find_scenes, console)
    with _folder(run.name, place, console) as folder, run_folder.selected(folder, tried):
        train.Training(run, folder, console, dataset, find_scenes).run()
    return load(folder)


class Choice(NamedTuple):
    """What `settle` chose."""

    config: Config
    why: str  # a sentence for the user: what was chosen, and the reason
    dataset: Dataset  # as it is trained on: rows without a split are training rows, copies share a group


def settle(
    dataset: Dataset,
    read_as: DataConfig | None = None,
    *,
    model: str | None = None,
    weights: str | None = None,
    method: str = "auto",
    overrides: Mapping[str, Any] | None = None,
) -> Choice:
    """Chooses the config that `imgclf.create` runs.

    The weights are those with the best published linear probe that cost at most `weights.choice.MAX_GMACS` and allow commercial use, of
    those that are on this machine or can be fetched; of a model that is named, torchvision's first ones, or else the first listed.
    Images are cropped and resized as those that the weights were trained on; for a probe, `create` then tries whether all of each image is
    better, and whether the mean over several views is (`preprocessing.select`).

    The method is a probe, an L2-regularised logistic regression on fixed features, where there are fewer than 50 training images per
    class, or on a CPU fewer than 5,000 in all; above, LP-FT: the probe's head, then fine-tuning of everything. Without weights
    everything is trained from scratch; where nothing is named and no weights can be had, that is a small network. Where half of the
    classes have three images or fewer, the probe is the nearest class mean.

    All images train a probe, which is scored and calibrated by cross-validation, in ten folds up to 1,000 images, in five above; a smaller
    class is held out in as many as it has images (or scenes). The same folds choose the penalty. For LP-FT and training from scratch a
    tenth of the training images validates, where every class has 10 or more; it calibrates the probabilities, and chooses the epoch.

    Args:
      dataset: its splits: train, val and test as they shall be used, "" counts as train.
      read_as: `config.data` by which it was read.
      model, weights, method: see `imgclf.create`.
      overrides: field → value, such as {"train.duration": "20 epochs"}; they win over everything chosen here.

    Raises:
      UserError: for unknown names and fields, and for data of one class.
    """
    units, dataset = _prepared(dataset)
    if method not in METHODS:
        raise UserError(f"method={method!r} is none; {nearest(method, METHODS)}")
    config = config_lib.default_config()
    if read_as is not None:
        config.data.update(read_as)
    else:
        config.data.path = dataset.table["source"].iloc[0]
    config.name = Path(dataset.table["source"].iloc[0]).stem or "create"
    config.data.scenes = "auto"
    config.data.split.method = "given"
    config.data.split.fractions = (1.0, 0.0, 0.0)
    config.eval.open_set = open_set.REFERENCES
    config.probe.folds = FOLDS if units.sum() <= MANY else FOLDS_OF_MANY

    config.model.name, config.model.weights, of_weights = _model(model, weights)
    if config.model.weights != "none":
        config.data.image_size = pretrained.find(config.model.weights, config.model.name).input_size or config.data.image_size
        config.data.resize = "weights"
    config.train.method, why = _method(dataset, config, method)
    if np.median(units) <= FEW_SHOT:
        config.probe.solver = "nearest_mean"
    if config.train.method != "probe":
        config_lib.override(config, fine_tuning(config.model.name) if config.model.weights != "none" else FROM_SCRATCH)
    if config.model.name == SMALL_MODEL:
        config_lib.override(config, SMALL)
    config_lib.override(config, overrides or {})
    if config.train.method != "probe" and units.min() >= VAL_UNITS and "data.split.fractions" not in (overrides or {}):
        config.data.split.fractions = (1 - VAL, VAL, 0.0)
    validation.validate(config)
    named = config.model.name + (f" with {config.model.weights}" if config.model.weights != "none" else " from scratch")
    told = f"{_METHOD_NAMES[config.train.method]} of {named}{why}."
    return Choice(config, told + (of_weights and f" {of_weights}") + _single_images(units, dataset.class_names), dataset)


def fine_tuning(model: str) -> dict[str, Any]:
    """Fields of fine-tuning for a model, as configs/finetune.py has them."""
    return _FINE_TUNING | ({"optimizer.learning_rate": _FAST} if model.startswith("mobilenet_v2") else {})


_METHOD_NAMES = {"probe": "Probe", "lp_ft": "Probe, then fine-tuning (LP-FT),", "fit": "Training", "auto": "Training"}


def _prepared(dataset: Dataset) -> tuple[np.ndarray, Dataset]:
    """Rows without a split made training rows, copies joined in groups; and the units (such groups) of each class in training."""
    check_two_classes(dataset.table["source"].iloc[0], dataset.class_names)
    table = dataset.table
    group = audit.groups_with_copies(table, config_lib.default_config().data.near_duplicate_bits)
    table = table.assign(group=pd.Series(group, dtype="str"), split=table["split"].replace("", "train"))
    rows = (table["split"] == "train").to_numpy()
    pairs = pd.DataFrame({"label": table["label"], "unit": splits.groups_of(table)})[rows].drop_duplicates()
    units = np.bincount(pairs["label"], minlength=len(dataset.class_names))
    if len(empty := np.flatnonzero(units == 0)):
        name = dataset.class_names[empty[0]]
        way_out = f"data.filter(lambda table: table.class_name != {name!r})"
        raise UserError(f"Class {name!r} has no training image: add one, or leave the class out by {way_out}.")
    return units, dataclasses.replace(dataset, table=table)


def _single_images(units: np.ndarray, class_names: tuple[str, ...]) -> str:
    """A sentence about classes of which one image, or one picture's copies, is all there is: none of it can be held out."""
    single = np.flatnonzero(units == 1)
    if not len(single):
        return ""
    if len(single) == len(units):
        return (
            " Every class has one training image: how often the classifier is right can't be estimated; two of each class give a rough "
            "estimate, ten a fair one."
        )
    shown = ", ".join(repr(class_names[label]) for label in single[:3]) + (f" and {len(single) - 3} more" if len(single) > 3 else "")
    what = "Class" if len(single) == 1 else "Classes"
    return f" {what} {shown} with one training image: how often that is recognised can't be estimated; add images for it."


def _model(model: str | None, weights: str | None) -> tuple[str, str, str]:
    """The names of the model and its weights, and a sentence about the choice where both were open."""
    if model is not None:
        pretrained.check_name(model)
    known = registry.weights()
    if weights is None:
        if model is None:
            try:
                found = weights_choice.choose()
            except weights_choice.NothingAtHand as error:
                told = f"A small network from scratch needs many more photos than published weights, but: {error}"
                return SMALL_MODEL, "none", told
            return found.entry.model, found.entry.name, found.why
        entries = [entry for entry in known.values() if entry.model == model]
        # those that can be fetched, torchvision's first recipe before all others
        entries.sort(key=lambda entry: (not entry.repo, not entry.name.endswith(".tv_in1k")))
        return model, entries[0].name if entries else "none", ""
    if model is None and weights.startswith("path:"):
        model = pretrained.model_of(weights)
        if not model:
            file = weights.removeprefix("path:")
            raise UserError(f"{file} looks like no model that imgclf knows: name it with model=NAME, such as model='resnet50'.")
    if model is None:
        if weights not in known and weights != "none":
            raise UserError(f"weights={weights!r} are none that imgclf knows; {pretrained.meant(weights, known)}")
        model = known[weights].model if weights in known else FROM_SCRATCH_MODEL
    return model, weights, ""


def _method(dataset: Dataset, config: Config, method: str) -> tuple[str, str]:
    """The method, and why."""
    if method != "auto":
        return method, ""
    if config.model.weights == "none":
        return "fit", ", as it has no weights"
    images, classes = int((dataset.table["split"] == "train").sum()), len(dataset.class_names)
    forced = "(method='lp_ft' does it anyway)"
    if images < FINE_TUNE_PER_CLASS * classes:
        few = f"{formatting.count(round(images / classes), 'training image')} per class, fine-tuning starts at {FINE_TUNE_PER_CLASS}"
        return "probe", f": {few} {forced}"
    if forms.target().platform == "cpu" and images < FINE_TUNE_ON_CPU:
        return "probe", f": {images:,} training images, fine-tuning on a CPU starts at {FINE_TUNE_ON_CPU:,} {forced}"
    return "lp_ft", f": {images:,} training images"


def _fetch(config: Config) -> None:
    """Has the weights at hand, or says before all else how to do without a network."""
    if config.model.weights != "none":
        pretrained.fetch(pretrained.find(config.model.weights, config.model.name))


@contextlib.contextmanager
def _folder(name: str, workdir: Path | str | None, console: Console) -> Iterator[Path]:
    """The run's folder: `workdir`, the working copy of one at a URL, else NAME, or NAME-2, NAME-3, … where that is taken, under runs/.

    A fresh one is made at once, so that no other process takes it; where the block fails before anything is in it, it is removed again.
    """
    if isinstance(workdir, str):
        folder = mirror.working_copy(workdir)
        with run_folder.at(folder, workdir, functools.partial(console.print, highlight=False, soft_wrap=True)):
            yield folder
        return
    if workdir is not None:
        yield workdir
        return
    number, parent = 1, cache_dir() / "runs" if notebook.is_running() else Path("runs")
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        made = run_folder.missing(folder)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"{folder} can't be made ({error.strerror}): name one with workdir=DIR.") from None
    if notebook.is_running():
        console.print(f"The run is kept in {folder}; workdir=DIR names another folder.", highlight=False, markup=False, soft_wrap=True)
    try:
        yield folder
    except BaseException:
        run_folder.remove_empty(made)
        raise
