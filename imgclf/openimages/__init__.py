"""Open Images, from class names to a cropped, licensed data set; the command `imgclf openimages` is a thin layer over it.

from pathlib import Path
from imgclf.data import openimages

folder = Path("data/burgers")
openimages.select(["Hamburger", "Sandwich"], openimages.Metadata("V7")).save(folder)
openimages.download(folder)
openimages.crop(folder)  # then: python run.py --config=configs/openimages_cnn.py:data/burgers
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.openimages.classes import Classes, load_classes
    from imgclf.openimages.crops import Cut, crop
    from imgclf.openimages.downloader import Plan, download
    from imgclf.openimages.metadata import Metadata
    from imgclf.openimages.photo import Manners
    from imgclf.openimages.radial_tree import write_page
    from imgclf.openimages.selection import Filters, Selection, load_selection, select

_HOMES = {
    "Classes": "classes", "load_classes": "classes", "Cut": "crops", "crop": "crops", "Plan": "downloader", "download": "downloader",
    "Metadata": "metadata", "Manners": "photo", "write_page": "radial_tree", "Filters": "selection", "Selection": "selection",
    "load_selection": "selection", "select": "selection",
}  # fmt: skip
__all__ = [
    "Classes", "Cut", "Filters", "Manners", "Metadata", "Plan", "Selection", "crop", "download", "load_classes", "load_selection", "select",
    "write_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a part when it is asked for: looking up a class needs no image decoder."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
