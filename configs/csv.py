"""A CSV or parquet file with a row per photo: columns `path` (or a file stem) and `label`, optionally `split` and `group`.

Paths are relative to the file, or to --set data.root; other column names: --set data.columns.label=species.
The model and its training are those of the config folder.
Cost: as there. Expected: as there.
Command: imgclf train csv:labels.csv --set data.root=photos
"""

from pathlib import Path

from imgclf.config import Config, load_config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config csv needs your file: csv:labels.csv.")
    config = load_config(f"folder:{path}")
    config.name = Path(path).stem
    config.data.source = "csv"
    return config
