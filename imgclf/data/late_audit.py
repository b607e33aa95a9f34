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
    assert dataset.unverified is not None
    table, learnt = dataset.table, dataset.unverified.learnt()
    at = pd.Index(dataset.unverified.ids.to_pandas()).get_indexer(pd.Index(table["id"]))
    learnt = learnt.iloc[at].reset_index(drop=True)
    bad = ~learnt["reason"].isin(["", "unverified"]).to_numpy(bool)
    found = pd.DataFrame({"id": table["id"][bad], "reason": learnt["reason"][bad], "detail": learnt["detail"][bad]})
    quarantine = pd.concat([dataset.quarantine, found.astype("str")], ignore_index=True).sort_values("id", ignore_index=True)
    known = {name: learnt[name] for name in ("sha256", "width", "height", "phash")}
    _, report = audit.audit(dataclasses.replace(dataset, table=table.assign(**known)), config)
    report["looked_at"]["images"] = int((learnt["reason"] != "unverified").sum())
    return dataclasses.replace(dataset, quarantine=quarantine), report


def readable(dataset: Dataset) -> Dataset:
    """The data set without the images that the verification has found to be damaged by now."""
    if dataset.unverified is None:
        return dataset
    at = pd.Index(dataset.unverified.ids.to_pandas()).get_indexer(pd.Index(dataset.table["id"]))
    sound = dataset.unverified.learnt()["reason"].isin(["", "unverified"]).to_numpy(bool)[at]
    return subset(dataset, np.flatnonzero(sound))


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
