"""Compares what a reproduction gave with what the bundle says: to the bit where the machines are of one kind, else within bounds."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from imgclf import formatting

TOLERANCE = 1e-3  # of a probability, between kinds of machines
AGREEMENT = 0.99  # of the predicted classes, likewise
_SAME = ("cpu", "cpu_features", "cpu_count", "devices", "xla_flags", "packages", "python")
_UNKNOWN = "the run has not noted its"

Outcome = Literal["equal", "close", "differs", "missing", "noted"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a comparison came to.

    Attributes:
      what: was compared.
      outcome: equal (to the bit), close (within what other machines make of it), differs, missing, or noted (nothing to pass or fail).
      told: the figures, for people.
    """

    what: str
    outcome: Outcome
    told: str

    @property
    def passed(self) -> bool:
        return self.outcome in ("equal", "close", "noted")


def machines(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In which of the things that change results two machines differ, as environment.json has them; [] = they are of one kind.

    What the run has not noted, as runs of earlier versions have not noted the CPU, counts as a difference.
    """
    told = []
    for name in _SAME:
        before, after = then.get(name), now.get(name)
        if name == "packages":
            before, after = before or {}, after or {}
            told += [f"{key} {before[key]}, now {after.get(key, 'none')}" for key in sorted(before) if before[key] != after.get(key)]
        elif name not in then:
            told.append(f"{_UNKNOWN} {name}")
        elif name == "cpu_features":
            if before != after:
                told.append("other instruction sets")
        elif before != after:
            told.append(f"{name} {before}, now {after}")
    return told


def of_machines(differences: list[str]) -> Verdict:
    """The verdict on the machines, by which the others are judged."""
    if not differences:
        return Verdict("machine", "noted", "the same kind of CPU, cores and packages as the run's: bits must be equal")
    shown = "; ".join(differences[:6]) + ("; …" if len(differences) > 6 else "")
    known = any(not difference.startswith(_UNKNOWN) for difference in differences)
    which = "another one than the run's" if known else "not known to be the run's"
    return Verdict("machine", "noted", f"{which} ({shown}): judged within tolerance")


def of_images(total: int, problems: Mapping[str, str]) -> Verdict:
    """The verdict on the images."""
    if not problems:
        return Verdict("images", "equal", f"all {total:,}: the SHA-256 of each is the run's, or its source makes it")
    shown = "; ".join(f"{name if name.isprintable() else repr(name)} ({reason})" for name, reason in list(problems.items())[:5]) + (
        "; …" if len(problems) > 5 else ""
    )
    return Verdict("images", "missing", f"{len(problems):,} of {total:,} could not be had as they were: {shown}")


def of_predictions(then: Path, now: Path, *, same_machine: bool) -> Verdict:
    """Compares two predictions.csv, row by row.

    Args:
      then: the bundle's.
      now: the reproduction's, which may lack rows.
      same_machine: whether bits have to be equal.
    """
    before, after = (pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id") for path in (then, now))
    if before.equals(after):
        return Verdict("predictions", "equal", f"all {len(before):,} equal, to the last digit")
    common = before.index.intersection(after.index)
    lacking = len(before) - len(common)
    missing = f"; {formatting.count(lacking, 'prediction')} of {len(before):,} could not be made" if lacking else ""
    if not len(common) or not set(before.columns) <= set(after.columns):
        return Verdict("predictions", "differs", f"none of {len(before):,} can be compared")
    one, other = before.loc[common], after.loc[common, list(before.columns)]
    equal = int((one == other).all(axis=1).sum())
    agreement = float((one["predicted"] == other["predicted"]).mean())
    difference = float(np.abs(one["probability"].astype(float).to_numpy() - other["probability"].astype(float).to_numpy()).max())
    told = (
        f"{equal:,} of {len(common):,} equal, to the last digit; the same class for {formatting.percent(agreement)}, probabilities at most "
        f"{difference:.2g} apart{missing}"
    )
    if lacking:
        return Verdict("predictions", "missing", told)
    close = not same_machine and difference <= TOLERANCE and agreement >= AGREEMENT
    return Verdict("predictions", "close" if close else "differs", told)


def of_results(then: Mapping[str, Any], now: Mapping[str, Any], *, same_machine: bool) -> Verdict:
    """Compares the headline of two results.json."""
    names = ("top1", "loss", "ece", "temperature")
    pairs = [(name, then.get(name), now.get(name)) for name in names if then.get(name) is not None]
    if all(before == after for _, before, after in pairs) and then["n"] == now["n"]:
        return Verdict(
            "results", "equal", f"top-1 {formatting.percent(then['top1'])} of {then['n']:,} {then['split']} images, loss, calibration"
        )
    told = ", ".join(
        f"{name} {formatting.number(before, 6)}, now {formatting.number(after, 6)}" for name, before, after in pairs if before != after
    )
    low, high = then["top1_ci95"]
    close = not same_machine and low <= now["top1"] <= high
    return Verdict("results", "close" if close else "differs", told or f"n {then['n']:,}, now {now['n']:,}")


def of_training(then: Mapping[str, Any], now: Mapping[str, Any], *, same_machine: bool) -> Verdict:
    """Compares a second training with the run: its parameters, and where they differ on another machine its score."""
    if then["params_sha256"] == now["params_sha256"]:
        return Verdict("training", "equal", f"the same parameters, to the bit: params_sha256 {then['params_sha256'][:16]}…")
    low, high = then["top1_ci95"]
    told = (
        f"other parameters; top-1 {formatting.percent(now['top1'])}, where the run has {formatting.percent(then['top1'])} "
        f"(95 % interval {formatting.interval((low, high))})"
    )
    return Verdict("training", "close" if not same_machine and low <= now["top1"] <= high else "differs", told)
