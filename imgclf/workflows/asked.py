"""What a workflow is asked to work on: a config, one read by its name, or that of a run with the run's own images."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf.config import Config, flatten, from_json, load_config, run_of, set_fields
from imgclf.config.loading import RUN_CONFIG

Fields = Mapping[str, Any] | Sequence[str]  # name → value, or assignments as flags have them; see `load_config`


@dataclasses.dataclass(frozen=True)
class Asked:
    """A config, and where it comes from.

    Attributes:
      config: the whole config, with the fields set that were asked for.
      run: the folder of the run whose config it is; None where it is no run's.
      same_data: whether it is a run's and says of images, labels and splits what the run's says: then the run's own images are meant.
    """

    config: Config
    run: Path | None
    same_data: bool


def asked_for(config: Config | str | os.PathLike[str], fields: Fields = ()) -> Asked:
    """Reads what a workflow is asked to work on.

    Args:
      config: the whole config, or what `load_config` reads one from.
      fields: what is set in it.

    Raises:
      UserError: as `load_config` does.
    """
    if not isinstance(config, str | os.PathLike):
        own = config.copy_and_resolve_references()
        set_fields(own, fields)
        return Asked(own, None, False)
    run = run_of(config)
    loaded = load_config(config, fields)
    same = False
    if run is not None:
        saved = from_json((run / RUN_CONFIG).read_text(encoding="utf-8"))
        same = _data_fields(saved) == _data_fields(loaded) and (run / "dataset.parquet").exists()
    return Asked(loaded, run, same)


def _data_fields(config: Config) -> dict[str, Any]:
    """What decides which images there are, and how they are split; where they lie may change."""
    shown = ("data.image_size", "data.resize", "data.crop_fraction", "data.interpolation", "data.mean", "data.std")
    free = (*shown, "data.in_memory_mb", "data.path", "data.root")
    return {name: value for name, value in flatten(config).items() if name.startswith("data.") and name not in free}
