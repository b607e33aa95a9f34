"""Tar files in the convention of WebDataset: a folder of them, or a pattern such as train-{000000..000009}.tar.

Splits are told from the files' names. The model and its training are those of the config folder.
Cost: as there. Expected: as there.
Command: imgclf train webdataset:FOLDER
"""

from imgclf.config import Config, load_config
from imgclf.data.shard_names import run_name
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config webdataset needs the folder or the pattern of your tar files: webdataset:FOLDER.")
    config = load_config(f"folder:{path}")
    config.name = run_name(path, "webdataset")
    config.data.source = "webdataset"
    return config
