"""Compares finished runs that were tested on the same images: by their answers, configs, calibration, cost, and pictures."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, formatting, outputs
from imgclf.data import run_images
from imgclf.data.splits import groups_of
from imgclf.errors import UserError
from imgclf.evaluation import comparison
from imgclf.reporting import comparison as page
from imgclf.reporting import pages
from imgclf.workflows.console import or_terminal

EDGE = 160  # pixels of a picture's longer side
_COSTS = ("params_total", "params_trainable", "train_seconds", "train_flops", "steps", "temperature")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was found. Printed, it is the runs and their differences.

    Attributes:
      runs: a row per run: run, top1 with its 95 % interval low to high, ece, images, split, params_total, params_trainable, train_seconds,
        train_flops, steps, temperature.
      pairs: a row for every two runs: a, b, difference (b − a) with its interval low to high, p, p_holm, tie, only_a, only_b,
        images_needed; see `evaluation.compare.paired`.
      per_class: a row per class and other run: class, images, run, recall_first, recall, difference, low, high.
      config: the fields of the configs that differ, a column per run.
      flipped: the images that some runs have right and others wrong: id, true, a column per run, right.
      notes: what a reader has to know.
      page: compare.html.
    """

    runs: pd.DataFrame
    pairs: pd.DataFrame
    per_class: pd.DataFrame
    config: pd.DataFrame
    flipped: pd.DataFrame
    notes: tuple[str, ...]
    page: Path

    def __repr__(self) -> str:
        return "\n".join([*page.run_sentences(self.runs), *page.pair_sentences(self.pairs), *self.notes])


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run, as far as it is compared."""

    folder: Path
    config: config_lib.Config
    results: dict[str, Any]
    tested: comparison.Tested


def compare(
    runs: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str] | None = None,
    *,
    common: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Comparison:
    """Compares finished runs on the images that all of them were tested on.

        found = imgclf.compare(["runs/small", "runs/large"])
        print(found)
        found.pairs

    Args:
      runs: the folders of two runs or more; the first is what the others are compared with by class.
      path: of the page, a self-contained HTML file; None = compare.html in the current folder, or compare-2.html, … if that is of others.
      common: whether to take the images that all runs were tested on, where these differ.
      overwrite: whether to replace what stands at `path`, if it is not an older page of these runs.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: for fewer than two runs, one that is not finished or of other classes, or runs whose test images differ, unless `common`.

    Example:
      >>> imgclf.compare(["runs/photos"])
      Traceback (most recent call last):
      imgclf.errors.UserError: ...
    """
    console = or_terminal(console)
    folders = [files.path_of(run, "the folder of a run") for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    names = _names(folders)
    read = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    aligned = comparison.align([run.tested for run in read], common=common)
    hashes = [str(run.results.get("params_sha256", "")) for run in read]
    of = outputs.identity("comparison", " and ".join(names), *hashes, *names, str(len(aligned.ids)))
    target = outputs.free_file(Path(page.PAGE), of) if path is None else outputs.check_file(path, of, overwrite=overwrite)
    scores = comparison.scores(aligned)
    flipped = comparison.flipped(aligned)
    pictures, missing = _pictures(read[0], flipped["id"].head(page.MOST).tolist(), console)
    notes = (*aligned.notes, *_notes(read, aligned), *missing)
    found = Comparison(
        _runs_table(read, scores, len(aligned.ids)),
        _pairs_table(comparison.pairs(aligned)),
        _class_table(comparison.per_class(aligned), names),
        _config_table(read),
        flipped,
        notes,
        target,
    )
    context = {"names": names, "bins": [row["ece_bins"] for row in scores], "pictures": pictures, "grouped": aligned.grouped is not None}
    tables = {"runs": found.runs, "pairs": found.pairs, "per_class": found.per_class, "config": found.config, "flipped": flipped}
    page.write_page(target, tables, context, notes, of)
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called: their folders' names, or paths where these are the same."""
    if len(folders) < 2:
        raise UserError("One run can't be compared with itself: name two runs or more.")
    resolved = [folder.resolve() for folder in folders]
    if twice := next((folder for folder in resolved if resolved.count(folder) > 1), None):
        raise UserError(f"{twice} is named twice: name each run once.")
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_run(folder: Path, name: str, results: dict[str, Any] | None = None) -> FinishedRun:
    """Reads a run's answers, by keys that are the same in every run: an image's contents, and how many of these came before.

    Args:
      folder: of the run.
      name: what it is called.
      results: the contents of its results.json, where this is not written yet.

    Raises:
      UserError: if it is not the folder of a finished run, or damaged.
    """
    for needed in ("results.json", "config.json", "predictions.csv", "dataset.parquet"):
        if not (needed == "results.json" and results) and not (folder / needed).exists():
            raise UserError(
                f"{folder} is not the folder of a finished run (it has no {needed}): finish it with imgclf train, or name another."
            )
    try:
        results = results or json.loads((folder / "results.json").read_text(encoding="utf-8"))
        table = pd.read_parquet(folder / "dataset.parquet")
        said = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
        said = said.astype({"probability": float})[["id", "true", "predicted", "probability"]]
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{folder} is damaged ({error}): restore the run from a copy, or train it again.") from error
    if "id" not in table:
        raise UserError(f"{folder} is a saved model, which does not keep the names of its images: name the run itself.")
    table = table.assign(group=groups_of(table)).set_index("id")
    if not set(said["id"]) <= set(table.index):
        raise UserError(f"{folder} is of two runs: its predictions.csv names images that are not in its dataset.parquet; train it again.")
    said = said.assign(sha256=table["sha256"].reindex(said["id"]).to_numpy(), group=table["group"].reindex(said["id"]).to_numpy())
    said = said.sort_values("id", kind="stable")
    said.index = pd.Index(said["sha256"] + said.groupby("sha256").cumcount().map("#{}".format))
    names = tuple(results.get("class_names") or results["per_class"])
    tested = comparison.Tested(name, names, said[["id", "true", "predicted", "probability", "group"]])
    return FinishedRun(folder, config_lib.from_json((folder / "config.json").read_text(encoding="utf-8")), results, tested)


def _notes(read: Sequence[FinishedRun], aligned: comparison.Aligned) -> list[str]:
    notes = []
    if aligned.grouped is not None:
        groups = formatting.count(len(set(aligned.groups)), "group")
        notes.append(
            f"The {len(aligned.ids):,} images come in {groups} (scenes, crops of one photo), which are the sample of all tests here."
        )
    splits = {run.results["split"] for run in read}
    if len(splits) > 1:
        notes.append(f"The runs' headlines are of different splits ({', '.join(sorted(splits))}).")
    return notes


def _pictures(run: FinishedRun, ids: list[str], console: Console) -> tuple[dict[str, str], list[str]]:
    """Thumbnails by id, and why there are none."""
    if not ids:
        return {}, []
    try:
        dataset = run_images.load(run.folder, run.config)
        row_of = {image_id: row for row, image_id in enumerate(dataset.table["id"])}
        rows = [row_of[image_id] for image_id in ids]
        return dict(zip(ids, pages.thumbnails(dataset, rows, EDGE, console), strict=True)), []
    except UserError as error:  # the numbers need no pictures
        return {}, [f"No pictures are shown: {error}"]


def _runs_table(read: Sequence[FinishedRun], scores: list[dict[str, Any]], images: int) -> pd.DataFrame:
    rows = []
    for run, score in zip(read, scores, strict=True):
        low, high = score["top1_ci95"]
        about = {"run": score["run"], "top1": score["top1"], "low": low, "high": high, "ece": score["ece"], "images": images}
        rows.append(about | {"split": run.results["split"]} | {name: run.results.get(name) for name in _COSTS})
    return pd.DataFrame(rows)


def _pairs_table(pairs: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(pairs)
    bounds = np.array(table.pop("difference_ci95").tolist())
    table.insert(3, "low", bounds[:, 0])
    table.insert(4, "high", bounds[:, 1])
    return table


def _class_table(rows: list[dict[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "class": row["class"],
                "images": row["images"],
                "run": name,
                "recall_first": row["recall"][0],
                "recall": recall,
                "difference": found["difference"],
                "low": found["ci95"][0],
                "high": found["ci95"][1],
            }
            for row in rows
            for name, recall, found in zip(names[1:], row["recall"][1:], row["differences"], strict=True)
        ]
    )


def _config_table(read: Sequence[FinishedRun]) -> pd.DataFrame:
    fields = [config_lib.flatten(run.config) for run in read]
    every = list(dict.fromkeys(name for own in fields for name in own))
    differing = [name for name in every if any(own.get(name) != fields[0].get(name) for own in fields[1:]) and name != "name"]
    columns = {run.tested.name: [own.get(name) for name in differing] for run, own in zip(read, fields, strict=True)}
    return pd.DataFrame({"field": differing, **columns})
