"""What a classifier looked at, and which training images are near: `Classifier.explain`, and the pictures of its mistakes."""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs
from imgclf.data import augment, images, native_messages, run_images
from imgclf.data.table import Dataset
from imgclf.deploy import items
from imgclf.deploy.items import NamedItems, Shown
from imgclf.deploy.options import Options
from imgclf.deploy.predictor import Answers, Predictor
from imgclf.errors import UserError, nearest
from imgclf.explanation import cam, pictures
from imgclf.explanation.choices import Method
from imgclf.explanation.neighbours import References
from imgclf.explanation.pictures import Picture, Search
from imgclf.probes.features import extract
from imgclf.reporting import explanations as page

MOST = 500  # pictures on a page
NEIGHBOURS = 3
SAMPLE = 2000  # training images that are searched for a page of mistakes


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is explained, and how.

    Attributes:
      method: hirescam | occlusion.
      class_name: whose map is made beside that of the predicted class; "" = of none.
      neighbours: how many training images are shown; None = 3 where the run's images are there.
      top_k: how many classes are named.
    """

    method: Method = "hirescam"
    class_name: str = ""
    neighbours: int | None = None
    top_k: int = 5


class _Read(NamedTuple):
    """Images that could be read, by their row, and why the others could not."""

    rows: list[int]
    pictures: list[Picture]
    reasons: list[str]


def explain(
    predictor: Predictor, sources: object, wanted: Wanted, path: str | os.PathLike[str] | None, *, overwrite: bool, console: Console
) -> pd.DataFrame:
    """Explains images and writes the page; see `Classifier.explain`."""
    taken = items.take(sources, predictor.config.data)
    path = None if path is None else Path(path)
    label = _label(predictor, wanted.class_name)
    if wanted.method == "hirescam":
        cam.need_places(predictor.explained)
    if not len(taken):
        raise UserError("There is no picture to explain: name one or more.")
    if len(taken) > MOST:
        raise UserError(f"{len(taken):,} pictures are more than one page can show ({MOST}): explain fewer at a time.")
    if path is not None:
        outputs.check_file(path, overwrite=True)  # a folder is refused before the work
    read = _read(predictor, taken, console)
    model = predictor.explained
    views, shown = pictures.stacked(read.pictures)
    of = outputs.identity("explanation", _subject(predictor, len(taken)), predictor.sha256, page.digest_of(views), repr(wanted))
    folder = predictor.folder or Path()
    target = outputs.free_file(folder / page.PAGE, of) if path is None else outputs.check_file(path, of, overwrite=overwrite)
    references, note = _references(predictor, wanted.neighbours, console)
    features, logits = model.features_and_logits(shown)
    probabilities = predictor.calibrated(logits)
    predicted = probabilities.argmax(1)
    labels = np.stack([predicted, np.full_like(predicted, label)], 1) if label is not None else predicted[:, None]
    search = Search(references, features, wanted.neighbours or NEIGHBOURS) if references is not None else None
    made = pictures.explained(
        model, read.pictures, labels, class_names=predictor.class_names, method=wanted.method, search=search, console=console
    )
    said = page.about(wanted.method, model, references, note)
    table = _table(predictor, taken, read, probabilities, wanted)
    columns = {"class": [one.classes[-1] for one in made], "map": [one.maps[-1] for one in made]}
    columns |= {"neighbours": [[near.id for near in one.neighbours] for one in made]}
    columns |= {"similarity": [[near.similarity for near in one.neighbours] for one in made]}
    for name, values in columns.items():
        table.insert(table.shape[1] - 1, name, pd.Series(values, index=read.rows, dtype=object))
    cards = page.cards(made, references, console)
    source = f"{predictor.config.model.name}, {formatting.count(len(predictor.class_names), 'class', 'classes')}"
    page.write_page(target, {"title": _name(predictor), "source": source}, table, cards, said, of)
    told = f"{formatting.count(len(made), 'picture')} explained; open {target} in a browser."
    for sentence in filter(None, [note, told]):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return table


def training_images(predictor: Predictor, console: Console, *, most: int | None = None) -> References:
    """The training images of the run that a classifier was loaded from, with their features; these come from the cache, or are put there.

    Raises:
      UserError: if the run or its images are not there any more, or have changed.
    """
    if predictor.folder is None or not (predictor.folder / "dataset.parquet").exists():
        raise UserError(
            "The run's table of images, dataset.parquet, is not there: restore the run, or leave the neighbours out with neighbours=0."
        )
    dataset = run_images.load(predictor.folder, predictor.config)
    return References.create(predictor.explained, dataset, most=most, console=console)


def cards_of_rows(
    predictor: Predictor, dataset: Dataset, rows: np.ndarray, labels: np.ndarray, console: Console
) -> tuple[dict[str, object], list[page.Card]] | None:
    """Explains labeled images for a page that shows these rows, by maps of the labels, int [n, k]; None where no places can be told apart.

    Returns:
      What is said of all, and a card for each.
    """
    model = predictor.explained
    if model.place_count == (1, 1):
        return None
    labeled = items.Labeled(dataset, images.Decoding.of(predictor.config.data))
    read = pictures.read(augment.Preprocessing.of(predictor.config), lambda place: labeled[int(rows[place])], len(rows), console)
    references, note = _references(predictor, None, console, most=SAMPLE)
    search = None
    if references is not None:
        features = np.asarray(extract(model.config, model.network, dataset, rows=rows))
        search = Search(references, features, NEIGHBOURS, dataset.table["sha256"].iloc[rows].tolist())
    made = pictures.explained(model, read, labels, class_names=predictor.class_names, method="hirescam", search=search, console=console)
    return page.sentences(page.about("hirescam", model, references, note)), page.cards(made, references, console)


def _references(predictor: Predictor, neighbours: int | None, console: Console, most: int | None = None) -> tuple[References | None, str]:
    """The training images to search, and why there are none where nobody asked for them by name."""
    if neighbours == 0:
        return None, ""
    try:
        return training_images(predictor, console, most=most), ""
    except UserError as error:
        if neighbours is not None:
            raise
        return None, f"No training images are shown as neighbours: {error}"


def _label(predictor: Predictor, class_name: str) -> int | None:
    if not class_name:
        return None
    if class_name not in predictor.class_names:
        told = nearest(class_name, predictor.class_names)
        raise UserError(f"The classifier knows no class {class_name!r}; {told}")
    return predictor.class_names.index(class_name)


def _read(predictor: Predictor, taken: NamedItems, console: Console) -> _Read:
    """Reads the images; those that can't be read have a reason, or end the call where each was named by the user."""
    decoding, preprocessing = images.Decoding.of(predictor.config.data), augment.Preprocessing.of(predictor.config)
    reasons = [""] * len(taken)
    blank = np.zeros((*preprocessing.size, 3), np.uint8)

    def pixels_of(row: int) -> np.ndarray:
        try:
            item = taken[row]
            return item.pixels if isinstance(item, Shown) else items.pixels(item, decoding, None)
        except FileNotFoundError:
            reasons[row] = "missing: no such file"
        except (images.ImageError, OSError, ValueError) as error:
            reasons[row] = str(error)
        return blank

    with native_messages.held_back():
        found = pictures.read(preprocessing, pixels_of, len(taken), console)
    rows = [row for row, reason in enumerate(reasons) if not reason]
    bad = next((row for row, reason in enumerate(reasons) if reason), None)
    if bad is not None and (not items.is_many(taken) or not rows):
        raise UserError(f"{taken.ids[bad]} can't be explained ({reasons[bad]}): leave it out, or repair it.")
    return _Read(rows, [found[row] for row in rows], reasons)


def _table(predictor: Predictor, taken: NamedItems, read: _Read, probabilities: np.ndarray, wanted: Wanted) -> pd.DataFrame:
    """A row per image as `Predictor.table` has it, those that can't be read among them."""
    every = np.zeros((len(taken), len(predictor.class_names)), np.float32)
    every[read.rows] = probabilities
    return predictor.table(taken.ids, Answers(every, read.reasons), Options(top_k=wanted.top_k))


def _name(predictor: Predictor) -> str:
    return predictor.folder.name if predictor.folder is not None and predictor.folder.name else predictor.config.name


def _subject(predictor: Predictor, count: int) -> str:
    return f"{_name(predictor)} on {formatting.count(count, 'picture')}"
