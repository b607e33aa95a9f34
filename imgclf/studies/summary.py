"""What the runs of a study say together: accuracies with intervals, paired comparisons, ties, costs, and which arm to take."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgclf import formatting
from imgclf.config import Config
from imgclf.evaluation import compare
from imgclf.reporting import notebook
from imgclf.studies.spec import Run, Study


class Summary(dict[str, Any]):
    """The contents of study.json. Printed, it is the findings as sentences; in a notebook, a table of the arms."""

    def __repr__(self) -> str:
        return "\n".join(describe(self))

    def _repr_html_(self) -> str:
        """For notebooks."""
        return notebook.study(self)


def data_of(config: Config) -> str:
    """Names the data of a config: `folder:photos`."""
    return f"{config.data.source}:{config.data.path or config.data.tfds.name}"


def table(listed: Sequence[Run], workdir: Path) -> pd.DataFrame:
    """Reads finished runs.

    Returns:
      A row per run: arm, seed, fold, folder, date (when it ended); n, top1, loss, train_seconds, params_trainable and train_flops of its
      results.json (train_flops is None in runs from before it was counted); images_per_second, of its log; `correct`: id → bool.
    """
    rows = []
    for one in listed:
        folder = workdir / one.folder
        results = json.loads((folder / "results.json").read_text())
        predictions = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
        correct = dict(zip(predictions["id"], predictions["predicted"] == predictions["true"], strict=True))
        about = {name: results[name] for name in ("n", "top1", "loss", "train_seconds", "params_trainable")}
        about |= {"train_flops": results.get("train_flops"), "images_per_second": _images_per_second(folder / "metrics.jsonl")}
        date = datetime.date.fromtimestamp((folder / "results.json").stat().st_mtime).isoformat()
        place = {"arm": one.arm, "seed": one.seed, "fold": one.fold, "folder": one.folder, "date": date}
        rows.append(place | about | {"correct": correct})
    return pd.DataFrame(rows)


def _images_per_second(log: Path) -> float | None:
    """The median speed of a run's log; what stands in its first line may hold the start, and counts only where there is no other."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    rates = [row["images_per_second"] for row in map(json.loads, lines) if row.get("images_per_second") is not None]
    return float(np.median(rates[1:] or rates)) if rates else None


def summarize(study: Study, complete: Sequence[str], table: pd.DataFrame, failures: list[dict[str, Any]]) -> dict[str, Any]:
    """Compares the arms.

    Args:
      study: with all its arms.
      complete: the arms of which no run failed.
      table: of their runs, see `table`.
      failures: {arm, seed, fold, error}.

    Returns:
      The contents of study.json: question, data, date (of the last run), seeds, folds, baseline; `arms`: name → what `compare.accuracy`
      says, with fields, train_seconds and train_flops of a seed, images_per_second, params_trainable; `comparisons`, see
      `compare.to_baseline`; `best`, see `recommend`; search (None) and failures.
    """
    correct = _correct(table)
    arms = {}
    for arm in complete:
        own = table[table["arm"] == arm]
        flops, rates = own["train_flops"], own["images_per_second"].dropna()
        arms[arm] = compare.accuracy(correct[arm]) | {
            "fields": dict(study.arms[arm]),
            "train_seconds": float(own["train_seconds"].sum()) / study.seeds,
            "train_flops": None if flops.isna().any() else float(flops.sum()) / study.seeds,
            "images_per_second": round(float(rates.median()), 1) if len(rates) else None,
            "params_trainable": int(own["params_trainable"].iloc[0]),
        }
    return {
        "question": study.question,
        "data": data_of(study.base),
        "date": max(table["date"]) if len(table) else None,
        "seeds": study.seeds,
        "folds": study.folds,
        "baseline": study.baseline,
        "arms": arms,
        "comparisons": compare.to_baseline(correct, study.baseline) if study.baseline in correct else {},
        "best": recommend(arms, correct, study.baseline),
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


SAME_COST = 0.05  # costs to train that differ by less than this share are no reason to take one of two arms


def recommend(arms: Mapping[str, Mapping[str, Any]], correct: Mapping[str, np.ndarray], baseline: str) -> dict[str, Any] | None:
    """Chooses the arm to take.

    Of the arms that the images can't tell from the most accurate one, those that are cheapest to train are left; of these it is the
    baseline, as nothing speaks for a change, and where the baseline is none of them the most accurate one. The cost is the counted work of
    training. Seconds are never compared: they hold compilations, which the first arm makes for the others, and whatever else the machine
    did meanwhile. Where the work of an arm is not known, cost decides nothing.

    Args:
      arms: name → top1 and train_flops (None = unknown).
      correct: name → bool [S, N], see `compare.to_baseline`.
      baseline: an arm's name, which may have failed and so be none of `arms`.

    Returns:
      `arm`; `top`, the most accurate one; `tied`, all that can't be told from it; `why`, for a sentence. None where there are no arms.
    """
    if not arms:
        return None
    top = max(arms, key=lambda arm: arms[arm]["top1"])
    rows = compare.to_baseline(correct, top)
    tied = [arm for arm in arms if arm == top or rows[arm]["tie"]]
    costs = {arm: arms[arm]["train_flops"] for arm in tied}
    known = all(cost is not None for cost in costs.values())
    cheapest = [arm for arm in tied if costs[arm] <= (1 + SAME_COST) * min(costs.values())] if known else tied
    arm = baseline if baseline in cheapest else max(cheapest, key=lambda arm: arms[arm]["top1"])
    return {"arm": arm, "top": top, "tied": tied, "why": _why(arm, top, tied, cheapest, len(arms), rows, baseline)}


def _why(
    arm: str, top: str, tied: Sequence[str], cheapest: Sequence[str], count: int, rows: Mapping[str, Mapping[str, Any]], baseline: str
) -> str:
    """Says why an arm is recommended; the arguments are those of `recommend`, `rows` the comparisons with the most accurate arm."""
    if count == 1:
        return "the only arm"
    if len(tied) == 1:
        return "the most accurate, told from all others by paired tests (Holm)"
    scored = "" if arm == top else f"; {top!r} scored most (p = {rows[arm]['p_holm']:.2g} between the two)"
    if len(cheapest) == 1:
        return f"the cheapest to train of {len(tied)} arms that the images can't tell apart{scored}"
    dearer = "" if len(cheapest) == len(tied) else f" (and {formatting.count(len(tied) - len(cheapest), 'dearer one')})"
    equals = f"{len(cheapest)} arms of equal cost that the images can't tell apart{dearer}"
    return (
        f"the baseline, as nothing speaks for another of {equals}{scored}" if arm == baseline else f"the most accurate of {equals}{scored}"
    )


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
        work = f", {formatting.flops(row['train_flops'])}" if row["train_flops"] else ""
        yield (
            f"{arm}: {formatting.percent(row['top1'])} (95 % interval {formatting.interval(row['top1_ci95'])}, "
            f"{row['images']:,} images{spread}; {formatting.duration(row['train_seconds'])} of training a seed{work})"
        )
    for arm, row in summary["comparisons"].items():
        difference, low, high = map(formatting.points, (row["difference"], *row["difference_ci95"]))
        points = f"{difference} points ({low} to {high}; p = {row['p_holm']:.2g})"
        needed = f", {row['images_needed']:,} images would be needed to tell" if row["tie"] and row["images_needed"] else ""
        yield f"{arm} against {summary['baseline']}: {points}{': a tie' + needed if row['tie'] else ''}."
    if summary["best"] and len(summary["arms"]) > 1:
        best = summary["best"]
        yield f"Take {best['arm']}: {best['why']}. To run it: {best['command']}"
    for failure in summary["failures"]:
        yield f"FAILED {failure['arm']}, seed {failure['seed']}, fold {failure['fold']}: {failure['error']}"
