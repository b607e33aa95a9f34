"""From a config, or a path, to the images that a run works with: load, split, audit and limit, written once."""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from imgclf import config as config_lib
from imgclf.config import Config
from imgclf.config.fields import DataConfig
from imgclf.data import class_names
from imgclf.data.audit import audit
from imgclf.data.recognition import source_of
from imgclf.data.scenes import FindScenes, Scenes, given, with_scenes
from imgclf.data.splits import assign_splits, limit_per_class
from imgclf.data.table import Dataset, decoded_by, load_dataset
from imgclf.errors import UserError
from imgclf.remote import places


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The images of a run.

    Attributes:
      config: the config in which stands what was decided by the data, so that predictions decode images as training did.
      dataset: as it is trained and evaluated on: split, audited, and limited to `config.data.per_class`.
      loaded: split, but with the copies that the audit drops, so that their pictures can still be shown.
      audit_report: see `imgclf.data.audit.audit`.
      scenes: that were found, or that the data name; None where `config.data.scenes` is "off".
    """

    config: Config
    dataset: Dataset
    loaded: Dataset
    audit_report: dict[str, Any]
    scenes: Scenes | None = None


def prepare(config: Config, dataset: Dataset | None = None, find_scenes: FindScenes | None = None) -> Prepared:
    """Loads, splits, audits and limits the images of a config, so that every command sees those that training sees.

    Args:
      config: the whole config, validated.
      dataset: taken instead of what `config.data` names. Its splits are completed as those of a source are: a missing val comes out of
        train.
      find_scenes: looks for shots of one scene, where `config.data.scenes` is "auto" and the data do not name them; it may use a model,
        which this room can't (`workflows.scenes.finder`).

    Raises:
      UserError: as `load_dataset`, `assign_splits` and `audit` do; for two classes that differ in upper and lower case only.
    """
    loaded = load_dataset(config) if dataset is None else decoded_by(dataset, config.data)
    if similar := class_names.alike(loaded.class_names):  # data may be looked at like that, and mended, but not trained on
        raise UserError(similar)
    scenes = None
    if config.data.scenes == "off":
        loaded = dataclasses.replace(loaded, table=loaded.table.drop(columns="scene", errors="ignore"))
    elif "scene" in loaded.table:
        scenes = given(loaded.table["scene"].tolist())
    elif find_scenes is None:
        raise ValueError("config.data.scenes='auto' needs find_scenes, as workflows.scenes.finder makes it.")
    else:
        scenes = find_scenes(loaded)
        loaded = dataclasses.replace(with_scenes(loaded, scenes.names), notes=(*loaded.notes, *scenes.notes))
    loaded = assign_splits(loaded, config)
    audited, report = audit(loaded, config)
    if scenes is not None:
        report["scenes"] |= scenes.about
    limited = limit_per_class(audited, config)
    resolved = config.copy_and_resolve_references()
    resolved.data.value_range = loaded.value_range
    if loaded.unverified is not None:
        resolved.data.verify = "background"  # also should the same folder hold fewer images one day
    return Prepared(resolved, limited, loaded, report, scenes)


def load_path(path: str | os.PathLike[str], **fields: Any) -> tuple[Dataset, DataConfig]:
    """Loads labeled images from a folder of class folders, a table, a pack, tar files, or parquet files, which is told from the path.

    Args:
      path: a folder, a .csv, .tsv or .parquet file, the folder of a pack, of WebDataset's tar files, or of a data set of the Hugging Face
        hub; a tar file, or a pattern of some, such as "train-{000..009}.tar"; or a URL.
      fields: of `config.data`, such as root, columns or max_pixels; class_map may be a dict, too: {"Cat": "cat"}.

    Returns:
      The data set, with the splits that its source gives, and the `config.data` by which it was read.

    Raises:
      UserError: if there is nothing there, the labels can't be told, or there is one class only.
    """
    text = os.fspath(path)
    if not places.is_url(text):
        place = Path(path).expanduser()
        if not place.exists() and "{" not in place.name:
            raise missing(place)
        text = str(place)
    config = config_lib.default_config()
    config.data.source, config.data.path = source_of(text), text
    if not config.data.source:
        raise UserError(f"{path} is neither a folder nor a table (.csv, .tsv, .parquet): name the folder that holds the class folders.")
    config_lib.override(config, {f"data.{name}": value for name, value in fields.items()})
    data = config.data
    if data.verify == "auto":  # who asks for a table of images wants to know of them
        config = config.copy_and_resolve_references()
        config.data.verify = "first"
    return load_dataset(config), data


def missing(place: Path) -> UserError:
    """The error for photos that are not there, with the nearest name that is."""
    others = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
    close = difflib.get_close_matches(place.name, others, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ": check the path."
    return UserError(f"There is no folder or table {str(place)!r} (in {place.parent.resolve()}){hint}")
