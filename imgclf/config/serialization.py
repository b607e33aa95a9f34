"""A config as JSON, and which fields two configs may differ in and still be the same experiment."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from imgclf.config.fields import Config, default_config
from imgclf.config.group import Group
from imgclf.config.names import check_field, flatten, tuples
from imgclf.errors import UserError


def to_json(config: Config) -> str:
    """Returns the config as JSON text, all fields resolved; `from_json` reads it back."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Reads a saved config; fields that it lacks get their defaults.

    Raises:
      UserError: for text that is not JSON, unknown fields and wrong types.
    """
    try:
        saved = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"The saved config is not JSON ({error}); take another run's config.json.") from None
    config = default_config()

    def update(group: Group, values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = prefix + key
            if isinstance(value, dict) and not isinstance(group.get(key), tuple | str):
                if not isinstance(group.get(key), ConfigDict):
                    check_field(name)
                update(group[key], value, name + ".")
                continue
            check_field(name)
            try:
                group[key] = tuples(value)
            except TypeError:
                raise UserError(f"config.{name}={value!r} has the wrong type; expected {type(group[key]).__name__}.") from None

    update(config, saved, "")
    return config


# What may change when a run is resumed: none of it alters a single bit of the result, but for the mesh and for remat, which round
# sums otherwise, as another number of devices does. Paths may, as the data's hash is compared.
FREE_ON_RESUME = (
    "name",
    "data.path",
    "data.root",
    "data.label_patch",
    "data.tfds.data_dir",
    "data.in_memory_mb",
    "loader.threads",
    "loader.workers",
    "loader.prefetch",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_seconds",
    "train.remat",
    "mesh.fsdp",
    "mesh.model",
    "mesh.rules",
    "mesh.split_from_mb",
    "eval.split",
    "eval.top_k",
    "eval.temperature",
    "eval.conformal",
    "eval.logit_adjustment",
    "eval.open_set",
    "eval.explain",
)


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields whose change would alter the run: `{name: (old, new)}`."""
    before, after = flatten(old), flatten(new)
    return {name: (before[name], after[name]) for name in after if name not in FREE_ON_RESUME and before[name] != after[name]}


def digest(config: Config) -> str:
    """The sha256 of all fields that alter a run's result: configs of one digest give the same run on the same images."""
    fields = {name: value for name, value in flatten(config).items() if name not in FREE_ON_RESUME}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
