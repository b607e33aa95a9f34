"""Photos named by a command that takes a folder or a table as well as a config."""

import os
from pathlib import Path

from imgclf.config.loading import shipped
from imgclf.data.packing import manifest
from imgclf.data.prepare import is_table, missing
from imgclf.remote import places


def config_named(photos: str | os.PathLike[str]) -> str:
    """The name of the config that reads these photos, for `load_config`.

    Args:
      photos: a folder of class folders, a table of paths and labels, a pack; or a config already: a name, a file, a run's folder.

    Raises:
      UserError: for a name of none of these.
    """
    if isinstance(photos, str) and places.is_url(photos):
        return f"csv:{photos}" if is_table(photos) else f"packed:{photos}" if manifest.is_pack(photos) else f"folder:{photos}"
    path = Path(photos).expanduser()
    named = os.fspath(photos).partition(":")[0]
    if not path.exists() and not Path(named).expanduser().exists() and Path(named).stem not in shipped():
        raise missing(path)
    if manifest.is_pack(os.fspath(photos)):
        return f"packed:{os.fspath(photos)}"
    if path.is_dir() and not (path / "config.json").exists():
        return f"folder:{os.fspath(photos)}"
    return f"csv:{os.fspath(photos)}" if path.is_file() and is_table(path.name) else os.fspath(photos)
