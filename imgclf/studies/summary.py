"""What the runs of a study say together: accuracies with intervals, paired comparisons, ties, costs, and which arm to take."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import Config
from imgclf.evaluation import compare
from imgclf.studies.spec import Run, Study


def data_of(config: Config) -> str:
    """Names the data of a config: `folder:photos`."""
    return f"{config.data.source}:{config.data.path or config.data.tfds.name}"


def table(listed: Sequence[Run], workdir: Path) -> pd.DataFrame:
    """A row per run: arm, seed, fold, folder, n, top1, loss, train_seconds, params_trainable, images_seen; `correct`: id → bool."""
    rows = []
    for one in listed:
        folder = workdir / one.folder
        results = json.loads((folder / "results.json").read_text())
        predictions = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
        correct = dict(zip(predictions["id"], predictions["predicted"] == predictions["true"], strict=True))
        about = {name: results[name] for name in ("n", "top1", "loss", "train_seconds", "params_trainable")}
        about["images_seen"] = results["steps"] * one.config.loader.batch_size
        rows.append({"arm": one.arm, "seed": one.seed, "fold": one.fold, "folder": one.folder} | about | {"correct": correct})
    return pd.DataFrame(rows)


def summarize(study: Study, complete: Sequence[str], table: pd.DataFrame, failures: list[dict[str, Any]]) -> dict[str, Any]:
    """The contents of study.json.

    Args:
      study: with all its arms.
      complete: the arms none of whose runs failed.
      table: of their runs.
      failures: {arm, seed, fold, error}.
    """
    correct = _correct(table)
    arms = {}
    for arm in complete:
        own = table[table["arm"] == arm]
        seconds, seen = float(own["train_seconds"].sum()), int(own["images_seen"].sum())
        arms[arm] = compare.accuracy(correct[arm]) | {
            "fields": dict(study.arms[arm]),
            "train_seconds": seconds / study.seeds,
            "images_per_second": round(seen / seconds, 1) if seen and seconds else None,
            "params_trainable": int(own["params_trainable"].iloc[0]),
        }
    return {
        "question": study.question,
        "data": data_of(study.base),
        "seeds": study.seeds,
        "folds": study.folds,
        "baseline": study.baseline,
        "arms": arms,
        "comparisons": compare.to_baseline(correct, study.baseline) if study.baseline in correct else {},
        "best": _best(arms, correct),
        "search": None,
        "failures": failures,
    }


def _correct(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Arm, in the study's order → bool [seeds, images]: the images that every seed of every arm was tested on, by id."""
    if table.empty:
        return {}
    tested: dict[tuple[str, int], dict[str, bool]] = {}
    for arm, seed, correct in zip(table["arm"], table["seed"], table["correct"], strict=True):
        tested.setdefault((arm, seed), {}).update(correct)
    common = sorted(set.intersection(*map(set, tested.values())))
    arms: dict[str, list[list[bool]]] = {}
    for (arm, _), correct in sorted(tested.items(), key=lambda item: item[0][1]):
        arms.setdefault(arm, []).append([correct[name] for name in common])
    return {arm: np.array(rows, bool) for arm, rows in arms.items()}


def _best(arms: Mapping[str, Mapping[str, Any]], correct: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The arm to take: of those that the images can't tell from the most accurate one, the cheapest to train."""
    if not arms:
        return None
    top = max(arms, key=lambda arm: arms[arm]["top1"])
    rows = compare.to_baseline(correct, top)
    tied = [arm for arm in arms if arm == top or rows[arm]["tie"]]
    arm = min(tied, key=lambda arm: arms[arm]["train_seconds"])
    others = formatting.count(len(tied) - 1, "other arm")
    if len(arms) == 1:
        why = "the only arm"
    elif len(tied) == 1:
        why = "the most accurate, told from all others by paired tests (Holm)"
    elif arm == top:
        why = f"the most accurate, tied with {others}, and the cheapest of those to train"
    else:
        p = f"p = {rows[arm]['p_holm']:.2g} between the two"
        why = f"the cheapest to train of {len(tied)} arms that the images can't tell apart; {top!r} scored most ({p})"
    return {"arm": arm, "top": top, "tied": tied, "why": why}


def describe(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yields the findings as sentences; a difference that the data can't support is said to be a tie."""
    if summary["search"]:
        search, states = summary["search"], [trial["state"] for trial in summary["search"]["trials"]]
        told = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "fail") if state in states)
        fields = ", ".join(f"{name}={value}" for name, value in search["fields"].items())
        value = search["trials"][search["best"]]["value"]
        yield f"Search: {told}; the best, trial {search['best']}, has a {search['metric']} of {formatting.number(value)} by {fields}."
    for arm, row in summary["arms"].items():
        spread = f", ± {formatting.percent(row['seed_sd'])} between seeds" if row["seed_sd"] is not None else ""
        yield (
            f"{arm}: {formatting.percent(row['top1'])} (95 % interval {formatting.interval(row['top1_ci95'])}, "
            f"{row['images']:,} images{spread}; {formatting.duration(row['train_seconds'])} of training a seed)"
        )
    for arm, row in summary["comparisons"].items():
        low, high = row["difference_ci95"]
        points = f"{100 * row['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}; p = {row['p_holm']:.2g})"
        needed = f", {row['images_needed']:,} images would be needed to tell" if row["tie"] and row["images_needed"] else ""
        yield f"{arm} against {summary['baseline']}: {points}{': a tie' + needed if row['tie'] else ''}."
    if summary["best"] and len(summary["arms"]) > 1:
        best = summary["best"]
        yield f"Take {best['arm']}: {best['why']}. To run it: {best['command']}"
    for failure in summary["failures"]:
        yield f"FAILED {failure['arm']}, seed {failure['seed']}, fold {failure['fold']}: {failure['error']}"
