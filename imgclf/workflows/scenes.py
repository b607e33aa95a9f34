"""Looks for shots of one scene, for a training run and by itself."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import errors, files, formatting, models, outputs
from imgclf.config import Config
from imgclf.data.capture import captures
from imgclf.data.scenes import TABLE, FindScenes, Scenes, bursts, components, leave_small_classes, named, with_scenes
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError
from imgclf.methods import resolve
from imgclf.models.weights import pretrained
from imgclf.probes import scenes as search
from imgclf.probes.features import extract
from imgclf.reporting import scenes as page
from imgclf.runtime import compilation_cache
from imgclf.workflows import checks
from imgclf.workflows.asked import Fields, asked_for
from imgclf.workflows.console import or_terminal
from imgclf.workflows.photos import config_named


def finder(config: Config, console: Console) -> FindScenes:
    """What looks for scenes as `config.data.scenes` = "auto" asks for: by the features of the weights, capture times and file numbers.

    Without weights only bursts are found: photos of one camera within seconds. A class that would be left with too few scenes to be
    divided keeps none, and a note says so.

    Args:
      config: the whole config.
      console: for the progress of times and features that have to be read.
    """

    def find(dataset: Dataset) -> Scenes:
        known = captures(dataset, console)
        labels, ids = dataset.table["label"].to_numpy(np.int64), dataset.table["id"].tolist()
        split = config.data.split
        least = max(4, split.folds + 1 if split.method == "kfold" else 0)  # two to train and choose by, one to validate, one to test
        if config.model.weights == "none":
            cluster, apart = leave_small_classes(components(bursts(labels, known), len(labels)), labels, least)
            names = named(cluster, ids)
            about = {"features": False, "with_time": int((known.camera >= 0).sum()), "numbers": False, "classes_left_apart": apart.tolist()}
            found = Scenes(names, {name: ("time",) for name in sorted(set(names) - {""})}, {}, about)
        else:
            resolved = resolve.resolve(resolve.check(config), len(dataset.class_names))
            model = models.create(resolved, len(dataset.class_names), tell=lambda said: None)  # the head is not used
            features = extract(resolved, model, dataset, console=console)
            found = search.find(features, labels, ids, known, least=least)
        return dataclasses.replace(found, notes=_notes(found, dataset.class_names, least))

    return find


def once(find_scenes: FindScenes) -> FindScenes:
    """What looks for scenes the first time it is asked, and answers the same from then on: for several runs on the same images."""
    found: list[tuple[list[str], Scenes]] = []

    def find(dataset: Dataset) -> Scenes:
        ids = dataset.table["id"].tolist()
        if not found or found[0][0] != ids:
            found[:] = [(ids, find_scenes(dataset))]
        return found[0][1]

    return find


def _notes(found: Scenes, class_names: tuple[str, ...], least: int) -> tuple[str, ...]:
    apart = [class_names[label] for label in found.about["classes_left_apart"]]
    if not apart:
        return ()
    shown = ", ".join(map(repr, apart[:3])) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")
    what = f"Class {shown} shows" if len(apart) == 1 else f"Classes {shown} show"
    return (
        f"{what} fewer than {least} scenes, too few to divide: their shots are divided like any photos, so that the score tells of known "
        "scenes there; add photos taken elsewhere.",
    )


def _set_weights(config: Config, weights: str) -> None:
    """Writes weights into the config, with the model they belong to and the size they want."""
    config.model.name = pretrained.model_of(weights) or config.model.name
    config.model.weights = weights
    config.data.image_size = pretrained.find(weights, config.model.name).input_size or config.data.image_size
    config.data.resize = "weights"  # as `imgclf.create` looks for them


@dataclasses.dataclass(frozen=True)
class FoundScenes:
    """What `find_scenes` found.

    Attributes:
      table: a row per photo, ready for `csv:`: path, label, split, group, scene, and why: what joined the scene.
      scenes: how many scenes of several shots.
      sentence: what was found, for people.
      notes: what else the user should know.
      page: scenes.html.
      csv: scenes.csv, the table; correct its column scene, and train by it.
    """

    table: pd.DataFrame
    scenes: int
    sentence: str
    notes: tuple[str, ...]
    page: Path
    csv: Path


def find_scenes(
    photos: Config | str | os.PathLike[str],
    *,
    fields: Fields = (),
    weights: str = "",
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> FoundScenes:
    """Looks for shots of one scene (bursts, several photos of one object in one setting), and leaves a page and a table of them.

        found = imgclf.find_scenes("photos", weights="timm/resnet50.tv_in1k")
        imgclf.train(f"csv:{found.csv}", fields={"data.root": "photos"})  # after correcting its column "scene", where that is wrong

    The data are not touched. Training does this search by itself where `config.data.scenes` is "auto".

    Args:
      photos: a folder of class folders, a table of paths and labels, or a config (or what `load_config` reads one from), of which data.*
        and model.* count.
      fields: what is set in the config, see `load_config`.
      weights: whose features tell similar photos: a published name, or "path:FILE"; "" = the config's. Without any, only capture
        times tell.
      out: the folder for scenes.html and scenes.csv; None = runs/NAME-scenes.
      overwrite: whether to replace the page of other images in `out`.
      console: where to tell what happens; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> found = imgclf.find_scenes("photos", console=quiet)
      >>> print(found.sentence, found.page.name)
      Capture times tell of no scenes of several shots among 75 photos; imgclf data scenes --weights NAME looks at them, too. scenes.html
    """
    console = or_terminal(console)
    config = asked_for(config_named(photos) if isinstance(photos, str | os.PathLike) else photos, fields).config
    with errors.under_names({"config.model.weights": "weights"} if weights else {}):
        if weights:
            _set_weights(config, weights)
        checked = resolve.check(config)
    checks.check_data_path(checked)
    folder = Path(out).expanduser() if out is not None else Path("runs") / f"{checked.name}-scenes"
    checks.check_apart(checked, folder, "--out")
    compilation_cache.enable()
    dataset = load_dataset(checked)
    of = page.identity(dataset, checked)
    outputs.check_file(folder / page.PAGE, of, overwrite=overwrite)
    if (folder / TABLE).exists() and not overwrite:
        raise UserError(
            f"{folder / TABLE} is there from an earlier search, perhaps with your corrections: give overwrite=True to replace "
            "it, or choose another folder with out=DIR."
        )
    found = finder(checked, console)(dataset)
    dataset = with_scenes(dataset, found.names)
    table = page.table(dataset, found)
    if checked.model.weights == "none":
        timed = formatting.count(found.about["with_time"], "photo has a capture time", "photos have a capture time")
        told = f"Without weights only capture times tell scenes, and {timed}: name weights (`imgclf models`), whose features tell more."
        found = dataclasses.replace(found, notes=(*found.notes, told))
    written = page.write(folder / page.PAGE, dataset, found, console, of=of)
    files.write_text(folder / TABLE, table.to_csv(index=False))
    return FoundScenes(table, len(found.why), found.sentence(), found.notes, written, folder / TABLE)
