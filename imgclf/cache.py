"""Where imgclf keeps what it would otherwise compute twice: `$IMGCLF_CACHE`, else the user's cache folder."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Returns `$IMGCLF_CACHE`, `$XDG_CACHE_HOME/imgclf` or `~/.cache/imgclf`; it may not exist yet."""
    if os.environ.get("IMGCLF_CACHE"):
        return Path(os.environ["IMGCLF_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgclf"
