"""A CSV or parquet file with a row per photo: columns `path` (or a file stem) and `label`, optionally `split` and `group`.

Paths are relative to the file, or to --config.data.root; other column names: --config.data.columns.label=species.
The model and its training are those of configs/folder.py.
Cost: as there. Expected: as there.
Command: python run.py --config=configs/csv.py:labels.csv --config.data.root=photos
"""

from pathlib import Path

from configs import folder
from imgclf.config import Config
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("configs/csv.py needs your file: --config=configs/csv.py:labels.csv.")
    config = folder.get_config(path)
    config.name = Path(path).stem
    config.data.source = "csv"
    return config
