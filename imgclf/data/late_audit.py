"""What the verification in the background has found: damaged images, and copies among the others."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.data import audit
from imgclf.data.splits import subset
from imgclf.data.table import Dataset


def looked_at(dataset: Dataset, config: Config) -> tuple[Dataset, dict[str, Any]]:
    """What is known by now of a data set that is verified in the background.

    Args:
      dataset: with its splits.
      config: the whole config.

    Returns:
      The data set with the damaged images that were found in its quarantine (its table keeps their rows, so that the stream of batches
      stays what it is), and the report of the audit of the images that are known (`audit.audit`).
    """
    learnt = _learnt(dataset)
    bad = ~learnt["reason"].isin(["", "unverified"]).to_numpy(bool)
    found = pd.DataFrame({"id": dataset.table["id"][bad], "reason": learnt["reason"][bad], "detail": learnt["detail"][bad]})
    quarantine = pd.concat([dataset.quarantine, found.astype("str")], ignore_index=True).sort_values("id", ignore_index=True)
    _, report = audit.audit(dataclasses.replace(dataset, table=_with(dataset.table, learnt)), config)
    report["looked_at"]["images"] = int((learnt["reason"] != "unverified").sum())
    return dataclasses.replace(dataset, quarantine=quarantine), report


def verified(dataset: Dataset) -> Dataset:
    """The data set without the images that are known to be damaged, and with what is known of the others; once all have been looked at, it
    is as if they had been verified first. One that was is returned as it is."""
    if dataset.unverified is None:
        return dataset
    learnt = _learnt(dataset)
    known = dataclasses.replace(dataset, table=_with(dataset.table, learnt))
    part = subset(known, np.flatnonzero(learnt["reason"].isin(["", "unverified"]).to_numpy(bool)))
    return part if (learnt["reason"] == "unverified").any() else dataclasses.replace(part, unverified=None)


def _learnt(dataset: Dataset) -> pd.DataFrame:
    """What is known of each row of the table, see `Unverified.learnt`."""
    assert dataset.unverified is not None
    at = pd.Index(dataset.unverified.ids.to_pandas()).get_indexer(pd.Index(dataset.table["id"]))
    return dataset.unverified.learnt().iloc[at].reset_index(drop=True)


def _with(table: pd.DataFrame, learnt: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{name: learnt[name] for name in ("sha256", "width", "height", "phash")})


def remarks(report: dict[str, Any], split: str = "") -> list[str]:
    """Sentences on what the audit of images that were verified in the background leaves open; none for other images.

    Args:
      report: see `audit.audit`.
      split: of the headline, whose copies in training are told; "" = of val and test.
    """
    if "looked_at" not in report:
        return []
    told = []
    looked, of = report["looked_at"]["images"], report["looked_at"]["of"]
    if looked < of:
        told.append(f"{of - looked:,} of {of:,} images have not been looked at yet: neither damage nor copies are known of them.")
    for name, counts in report["in_training"].items():
        if counts["copies"] and split in ("", name):
            told.append(
                f"{counts['copies']:,} of {counts['of']:,} {name} images have a copy in training, which was found while it went on, so "
                "that none was dropped: data.verify='first' drops them before."
            )
    return told
