"""What the predictions of finished runs say of each other on the images that all of them were tested on."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.data.scenes import components
from imgclf.errors import UserError
from imgclf.evaluation import calibration, compare
from imgclf.evaluation.intervals import clustered, holm, paired_proportions, wilson


@dataclasses.dataclass(frozen=True)
class Tested:
    """What a run said of its test images.

    Attributes:
      name: of the run.
      class_names: of its classes.
      table: a row per image, by a key that is the image's in every run: columns id, true, predicted, probability (of the predicted class),
        and group, what belongs together.
    """

    name: str
    class_names: tuple[str, ...]
    table: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Aligned:
    """Runs on the same images, in the same order.

    Attributes:
      names: of the runs, R.
      class_names: of the classes.
      ids: N, as the first run calls the images.
      true: object [N], the labels of the first run.
      groups: int [N], what belongs together in any of the runs.
      predicted: object [R, N].
      probability: float64 [R, N], of the predicted class.
      notes: what a reader has to know: images left out, labels that differ.
    """

    names: list[str]
    class_names: list[str]
    ids: list[str]
    true: np.ndarray
    groups: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    notes: list[str]

    @property
    def correct(self) -> np.ndarray:
        """bool [R, N]."""
        found: np.ndarray = self.predicted == self.true
        return found

    @property
    def grouped(self) -> np.ndarray | None:
        """The groups, where any has several images; else None."""
        return self.groups if len(set(self.groups)) < len(self.groups) else None


def align(runs: Sequence[Tested], *, common: bool = False) -> Aligned:
    """Puts the answers of runs beside each other.

    Args:
      runs: two or more.
      common: whether to take the images that all have been tested on, where they differ.

    Raises:
      UserError: if the runs have other classes, or other test images and not `common`, or no image in common.
    """
    first = runs[0]
    for other in runs[1:]:
        if differing := sorted(set(first.class_names) ^ set(other.class_names)):
            only = first.name if differing[0] in first.class_names else other.name
            raise UserError(
                f"{first.name} and {other.name} have other classes ({differing[0]!r} is only in {only}), so that their accuracies can't be "
                "compared: compare runs of the same classes."
            )
    keys = [set(run.table.index) for run in runs]
    shared = set.intersection(*keys)
    notes = []
    if any(own != shared for own in keys):
        sizes = ", ".join(f"{run.name} on {len(own):,}" for run, own in zip(runs, keys, strict=True))
        if not shared:
            raise UserError(f"The runs were tested on different images ({sizes}), and have none in common: evaluate them on the same ones.")
        if not common:
            raise UserError(
                f"The runs were tested on different images ({sizes}; {len(shared):,} in common): give common=True to compare "
                "them on those that all were tested on."
            )
        notes.append(f"Compared on the {formatting.count(len(shared), 'image')} that all runs were tested on ({sizes}).")
    tables = [run.table.loc[[key for key in first.table.index if key in shared]] for run in runs]
    true = tables[0]["true"].to_numpy(object)
    for run, table in zip(runs[1:], tables[1:], strict=True):
        if other_labels := int((table["true"].to_numpy(object) != true).sum()):
            notes.append(
                f"{formatting.count(other_labels, 'image')} {'has' if other_labels == 1 else 'have'} another label in {run.name} than in "
                f"{first.name}, whose labels count here."
            )
    return Aligned(
        [run.name for run in runs],
        [name for name in first.class_names if name in set(true)],
        tables[0]["id"].tolist(),
        true,
        joined([table["group"].to_numpy(object) for table in tables]),
        np.stack([table["predicted"].to_numpy(object) for table in tables]),
        np.stack([table["probability"].to_numpy(np.float64) for table in tables]),
        notes,
    )


def joined(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers the groups, int [N], of images that are together in any of several divisions, each object [N], directly or through others."""
    codes = [pd.factorize(own)[0] for own in groups]
    starts = np.cumsum([len(codes[0]), *(own.max() + 1 for own in codes)])
    ends = np.concatenate([own + start for own, start in zip(codes, starts, strict=False)])
    images = np.tile(np.arange(len(codes[0])), len(codes))
    return components(np.stack([images, ends], axis=1), starts[-1])[: len(codes[0])]


def scores(aligned: Aligned) -> list[dict[str, Any]]:
    """Each run's `top1` with `top1_ci95` (of groups, where there are), `ece` and `ece_bins`, by the probability of the predicted class."""
    rows = []
    for name, correct, probability in zip(aligned.names, aligned.correct, aligned.probability, strict=True):
        error, bins = calibration.expected_calibration_error(probability, correct)
        grouped = aligned.grouped
        bounds = wilson(int(correct.sum()), len(correct)) if grouped is None else clustered(correct, grouped)
        rows.append({"run": name, "top1": float(correct.mean()), "top1_ci95": list(bounds), "ece": error, "ece_bins": bins})
    return rows


def pairs(aligned: Aligned) -> list[dict[str, Any]]:
    """Every two runs by `compare.paired`, b against a, with `p_holm` over all pairs and `tie`."""
    rows = []
    for a, b in itertools.combinations(range(len(aligned.names)), 2):
        found = compare.paired(aligned.correct[a : a + 1], aligned.correct[b : b + 1], groups=aligned.grouped)
        rows.append({"a": aligned.names[a], "b": aligned.names[b], **found})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "tie": compare.is_tie(p, row["difference_ci95"])}
    return rows


def per_class(aligned: Aligned) -> list[dict[str, Any]]:
    """Each class's recall by every run, and the difference of every other run from the first with its 95 % interval.

    The interval is that of `paired_proportions`; where images come in groups it counts each group of the class as one image.
    """
    rows = []
    for name in aligned.class_names:
        own = aligned.true == name
        correct, count = aligned.correct[:, own], int(own.sum())
        effective = count if aligned.grouped is None else len(set(aligned.groups[own]))
        differences = []
        for other in correct[1:]:
            only_a, only_b = int((correct[0] & ~other).sum()), int((~correct[0] & other).sum())
            share = effective / count
            bounds = paired_proportions(only_a * share, only_b * share, effective)
            differences.append({"difference": (only_b - only_a) / count, "ci95": list(bounds), "only_a": only_a, "only_b": only_b})
        rows.append({"class": name, "images": count, "recall": correct.mean(1).tolist(), "differences": differences})
    return rows


def flipped(aligned: Aligned) -> pd.DataFrame:
    """The images that some runs have right and others wrong: columns id, true, a column per run with what it said, and right, the names of
    those that were right, joined by commas. Those on which most images agree in this come first, in them the most confident mistakes."""
    correct = aligned.correct
    rows = np.flatnonzero(correct.any(0) & ~correct.all(0))
    worst = np.where(correct, 0, aligned.probability).max(0)
    right = [", ".join(name for name, own in zip(aligned.names, correct[:, row], strict=True) if own) for row in rows]
    table = pd.DataFrame({"id": [aligned.ids[row] for row in rows], "true": aligned.true[rows]})
    for name, said in zip(aligned.names, aligned.predicted, strict=True):
        table[name] = said[rows]
    table["right"] = right
    order = table.assign(count=table.groupby("right")["id"].transform("size"), worst=worst[rows])
    order = order.sort_values(["count", "right", "worst"], ascending=[False, True, False], kind="stable")
    return table.loc[order.index].reset_index(drop=True)
