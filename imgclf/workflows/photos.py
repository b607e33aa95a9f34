"""Photos named by a command that takes a folder or a table as well as a config."""

import os
from pathlib import Path

from imgclf.config.loading import shipped
from imgclf.data.prepare import missing
from imgclf.data.recognition import source_of
from imgclf.remote import places


def config_named(photos: str | os.PathLike[str]) -> str:
    """The name of the config that reads these photos, for `load_config`.

    Args:
      photos: a folder of class folders, a table of paths and labels, a pack; or a config already: a name, a file, a run's folder.

    Raises:
      UserError: for a name of none of these.
    """
    if isinstance(photos, str) and places.is_url(photos):
        return f"{source_of(photos)}:{photos}"
    path = Path(photos).expanduser()
    named = os.fspath(photos).partition(":")[0]
    if not path.exists() and not Path(named).expanduser().exists() and Path(named).stem not in shipped():
        raise missing(path)
    if path.exists() and not (path / "config.json").exists() and (source := source_of(os.fspath(photos))):
        return f"{source}:{os.fspath(photos)}"
    return os.fspath(photos)
