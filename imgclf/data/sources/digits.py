"""The source "digits": small scans that come with scikit-learn, for trying things out."""

import importlib.util
from pathlib import Path

import numpy as np

from imgclf.data.readers import ArrayReader
from imgclf.data.sources.base import Listing, Source


class Digits(Source):
    """scikit-learn's 1,797 scans of handwritten digits, 8x8 (UCI "Optical Recognition of Handwritten Digits", test part)."""

    def listing(self) -> Listing:
        """Lists all of them, without splits."""
        # The file that load_digits reads: importing sklearn.datasets takes a second, which the quick start need not wait for.
        package = importlib.util.find_spec("sklearn")
        assert package is not None
        assert package.origin is not None
        rows = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        arrays = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        return Listing(
            source="digits",
            ids=[f"digits/{row:04d}" for row in range(len(arrays))],
            reader=ArrayReader(arrays),
            classes=[str(int(label)) for label in rows[:, -1]],
            class_names=tuple("0123456789"),
        )
