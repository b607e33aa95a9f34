"""The config file that stands for a saved run: flags.py reads --config=RUN/config.json through it."""

from pathlib import Path

from imgclf.config.fields import Config
from imgclf.config.serialization import from_json


def get_config(path: str) -> Config:
    """Reads the `config.json` of a run."""
    return from_json(Path(path).read_text())
