"""Where the stories take their photos from: real ones beside the checkout where they are, else the digits that come with scikit-learn."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SHARED = Path(__file__).resolve().parents[3] / "shared"


def photos(name: str, digits: str = "38") -> Path:
    """The folder of a set of photos; without it, one of digits in class folders, so that a story runs anywhere."""
    if (SHARED / "data" / name).is_dir():
        return SHARED / "data" / name
    folder = Path(tempfile.mkdtemp(prefix="imgclf-story-")) / "digits"
    scans = load_digits()
    for number, (image, label) in enumerate(zip(scans.images, scans.target, strict=True)):
        if str(label) in digits:
            path = folder / f"digit {label}" / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    return folder


def weights(name: str = "mobilenet_v2_0.35_224_no_top.keras.h5") -> str | None:
    """Weights for `imgclf.create`; without the file, none, and a small network is trained from scratch."""
    file = SHARED / "weights" / name
    return f"path:{file}" if file.exists() else "none"


def workdir() -> Path:
    """A folder for the story's runs, outside of the pages."""
    return Path(tempfile.mkdtemp(prefix="imgclf-story-"))
