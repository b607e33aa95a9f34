"""The images of a run, found again by the table that its folder keeps."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from imgclf.config import Config
from imgclf.data.splits import subset
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError


def load(folder: Path, config: Config) -> Dataset:
    """The images of a run, as they were split, audited and limited when it began; others that have come since don't matter.

    Args:
      folder: of the run.
      config: its config; `config.data.path` and `root` may be where the images lie now.

    Returns:
      The data set of all splits, in the order of the run's `dataset.parquet`.

    Raises:
      UserError: if images of the run are gone, or have other contents or another label by now, or the folder doesn't say which they were.
    """
    saved = pd.read_parquet(folder / "dataset.parquet")
    if "id" not in saved:
        raise UserError(f"{folder} is a saved model, which does not keep the names of its images: name labeled images, or the run itself.")
    loaded = load_dataset(config)
    row_of = pd.Series(range(len(loaded.table)), index=loaded.table["id"])
    rows = row_of.reindex(saved["id"]).to_numpy()
    gone = np.isnan(rows)
    now = loaded.table.iloc[rows[~gone].astype(np.int64)]
    then = saved[~gone]
    told_by = "file_size" if "file_size" in saved and "file_size" in now else "sha256"  # of images that are verified in the background
    same = (now[told_by].to_numpy() == then[told_by].to_numpy()) & (now["class_name"].to_numpy() == then["class_name"].to_numpy())
    if gone.any() or not same.all():
        example = next(iter([*saved["id"][gone], *then["id"][~same]]))
        count, other = int(gone.sum()), int((~same).sum())
        raise UserError(
            f"The data has changed since the run in {folder} began: {count} of its images are gone, {other} have other contents or another "
            f"label (such as {example!r}). Bring the old data back, or name other labeled images."
        )
    found = subset(loaded, rows.astype(np.int64))
    kept = [name for name in ("label", "split", "group", "scene") if name in saved]
    table = found.table.drop(columns="scene", errors="ignore").assign(**{name: saved[name].to_numpy() for name in kept})
    names = saved.drop_duplicates("label").set_index("label")["class_name"].sort_index()
    return dataclasses.replace(found, table=table.astype(saved.dtypes[kept].to_dict()), class_names=tuple(names))
