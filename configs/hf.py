"""An image data set of the Hugging Face hub: a folder of its parquet files, or hf://datasets/OWNER/NAME.

Splits are told from the files' names. The model and its training are those of the config folder.
Cost: as there, and once a copy of the images on disk. Expected: as there.
Command: imgclf train hf:FOLDER
"""

from imgclf.config import Config, load_config
from imgclf.data.shard_names import run_name
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config hf needs the folder of your parquet files, or the address of a data set: hf:hf://datasets/OWNER/NAME.")
    config = load_config(f"folder:{path}")
    config.name = run_name(path, "hf")
    config.data.source = "hf"
    return config
