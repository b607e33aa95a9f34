"""Open Images, from class names to a cropped, licensed data set; the command `imgclf openimages` is a thin layer over it.

from pathlib import Path
from imgclf import openimages

openimages.get(["Hamburger", "Sandwich"], Path("data/burgers"))  # then: imgclf train openimages_cnn:data/burgers

Its three steps can be taken one by one: `select`, whose result is saved into a folder, then `download` and `crop` with that folder.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.openimages.classes import Classes, load_classes
    from imgclf.openimages.crops import CropOptions, Crops, crop
    from imgclf.openimages.dataset import Dataset, get
    from imgclf.openimages.downloader import Downloads, download
    from imgclf.openimages.jobs import DownloadOptions, FetchOptions
    from imgclf.openimages.metadata import Metadata
    from imgclf.openimages.radial_tree import write_page
    from imgclf.openimages.selection import Filters, Selection, load_selection, select

_HOMES = {
    "Classes": "classes", "load_classes": "classes", "CropOptions": "crops", "Crops": "crops", "crop": "crops", "Dataset": "dataset",
    "get": "dataset", "Downloads": "downloader", "download": "downloader", "DownloadOptions": "jobs", "FetchOptions": "jobs",
    "Metadata": "metadata", "write_page": "radial_tree", "Filters": "selection", "Selection": "selection", "load_selection": "selection",
    "select": "selection",
}  # fmt: skip
__all__ = [
    "Classes", "CropOptions", "Crops", "Dataset", "DownloadOptions", "Downloads", "FetchOptions", "Filters", "Metadata", "Selection",
    "crop", "download", "get", "load_classes", "load_selection", "select", "write_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a part when it is asked for: looking up a class needs no image decoder."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
