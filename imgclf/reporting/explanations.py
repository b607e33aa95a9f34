"""Explained images on a page: the picture, the maps laid over it, and the training images that are nearest.

A run keeps those of its worst mistakes in `samples/`, so that its report can be remade without model and data; explanations.json holds
    method      "hirescam" or "occlusion"
    views       how many views of each image the answers are of; the maps are of the plain one
    searched    among how many training images the nearest were looked for, 0 = they weren't; of: how many there are
    adds_up     whether the contributions of HiResCAM are the logit without its bias
    note        what else a reader has to know; ""
    images      {id: {"picture": file, "maps": [{"class", "file"}], "neighbours": [{"id", "class", "similarity", "file"}]}}
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import files, formatting, outputs
from imgclf.data.augment import Preprocessing
from imgclf.explanation.choices import Method
from imgclf.explanation.explained import Explained
from imgclf.explanation.neighbours import References
from imgclf.explanation.pictures import ExplainedImage
from imgclf.reporting import pages

PAGE = "explain.html"
INDEX = "explanations.json"
NEIGHBOUR_EDGE = 96  # pixels of a training image's longer side

Card = dict[str, Any]  # picture, maps [{class, file}], neighbours [{id, class, similarity, file}]; files are WebP, as bytes or by name


def about(method: Method, model: Explained, references: References | None, note: str = "") -> dict[str, Any]:
    """What the page says of all its explanations; see the module."""
    views = len(Preprocessing.of(model.config).evaluation)
    searched, of = (0, 0) if references is None else (len(references.features), references.of)
    return {"method": method, "views": views, "adds_up": model.adds_up, "searched": searched, "of": of, "note": note}


def cards(images: Sequence[ExplainedImage], references: References | None, console: Console) -> list[Card]:
    """The pictures of explained images, encoded; those of the training images that are near are read."""
    rows = sorted({neighbour.row for image in images for neighbour in image.neighbours})
    near: dict[int, str] = {}
    if references is not None and rows:
        near = dict(zip(rows, pages.thumbnails(references.dataset, rows, NEIGHBOUR_EDGE, console), strict=True))
    return [
        {
            "picture": pages.thumbnail(image.sharp, max(image.sharp.shape)),
            "maps": [
                {"class": name, "file": pages.thumbnail(shown, max(shown.shape))}
                for name, shown in zip(image.classes, image.overlays, strict=True)
            ],
            "neighbours": [
                {"id": one.id, "class": one.class_name, "similarity": round(one.similarity, 4), "file": near[one.row]}
                for one in image.neighbours
            ],
        }
        for image in images
    ]


def save(run: Path, said: Mapping[str, Any], made: Mapping[str, Card]) -> None:
    """Writes explained images, by their ids, into `run`/samples, beside the pictures of `samples.save`."""
    folder = run / "samples"

    def kept(encoded: str) -> str:
        data = base64.b64decode(encoded)
        name = f"{hashlib.sha256(data).hexdigest()[:20]}.webp"
        (folder / name).write_bytes(data)
        return name

    images = {}
    for image_id, card in made.items():
        maps, near = ([row | {"file": kept(row["file"])} for row in card[name]] for name in ("maps", "neighbours"))
        images[image_id] = {"picture": kept(card["picture"]), "maps": maps, "neighbours": near}
    files.write_text(folder / INDEX, json.dumps({**said, "images": images}, indent=1))


def of_run(run: Path) -> tuple[dict[str, Any], dict[str, Card]] | None:
    """What `save` has written: what is said of all, and the cards by id; None where a run has none."""
    index = run / "samples" / INDEX
    if not index.exists():
        return None
    saved = json.loads(index.read_text(encoding="utf-8"))

    def loaded(row: dict[str, Any], name: str = "file") -> dict[str, Any]:
        return row | {name: base64.b64encode((index.parent / Path(row[name]).name).read_bytes()).decode()}

    made = {}
    for image_id, card in saved.pop("images").items():
        maps, near = ([loaded(row) for row in card[name]] for name in ("maps", "neighbours"))
        made[image_id] = loaded(card, "picture") | {"maps": maps, "neighbours": near}
    return sentences(saved), made


def sentences(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of all, with what stands under the heading: `text`, a list of sentences."""
    how = "Occlusion: by how much the class's logit falls when a place is covered with grey."
    if said["method"] == "hirescam":
        not_linear = "do not quite add up to the class's logit, as what the network makes of them is not linear"
        sums = "add up to the class's logit without its bias" if said["adds_up"] else not_linear
        how = f"HiResCAM: the contributions of the places {sums}."
    text = [
        "Orange places speak for the class that stands under a picture, blue ones against it. The colours of an image have one scale, so "
        "that its classes can be compared; those of two images can't.",
        how,
    ]
    if said["views"] > 1:
        text.append(f"The answer is a mean over {said['views']} views of the image; the map is of the plain one.")
    if said["searched"]:
        among = f"{formatting.count(said['searched'], 'training image')}" + (f" of {said['of']:,}" if said["of"] > said["searched"] else "")
        text.append(f"Below: the nearest of {among}, by the cosine of the network's features.")
    return {**said, "text": [*text, *filter(None, [said["note"]])]}


def write_page(
    path: Path, subject: Mapping[str, str], table: pd.DataFrame, made: Sequence[Card], said: Mapping[str, Any], of: outputs.Identity
) -> Path:
    """Writes the page of `Classifier.explain`.

    Args:
      path: of the page.
      subject: what the page is of: `title` and `source`.
      table: a row per image, as `Classifier.explain` returns it; where an image can't be read, its reason is shown.
      made: a card for each image that could be read, in their order.
      said: see `about`.
      of: see `outputs`.
    """
    shown = iter(made)
    rows = []
    places = [name for name in table if f"{name}_probability" in table]
    for row in table.to_dict("records"):
        if row["reason"]:
            continue
        answers = [(row[name], row[f"{name}_probability"]) for name in places]
        rows.append(next(shown) | {"id": row["id"], "answers": answers, "asked": row["class"]})
    context = {
        **subject,
        "cards": rows,
        "unread": table.loc[table["reason"] != "", ["id", "reason"]].to_dict("records"),
        "said": sentences(said),
        "style": pages.source("report.css") + pages.source("explanations.css"),
    }
    return pages.write(path, "explanations.html.j2", context, of)


def digest_of(views: np.ndarray) -> str:
    """The sha256 of what a network was shown."""
    return hashlib.sha256(np.ascontiguousarray(views).tobytes()).hexdigest()
