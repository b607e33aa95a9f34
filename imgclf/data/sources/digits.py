"""The source "digits": small scans that come with scikit-learn, for trying things out."""

import numpy as np

from imgclf.data.readers import ArrayReader
from imgclf.data.sources.base import Listing, Source


class Digits(Source):
    """scikit-learn's 1,797 scans of handwritten digits, 8x8 (UCI "Optical Recognition of Handwritten Digits", test part)."""

    def listing(self) -> Listing:
        """Lists all of them, without splits."""
        from sklearn.datasets import load_digits  # slow to import

        digits = load_digits()
        arrays = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return Listing(
            source="digits",
            ids=[f"digits/{row:04d}" for row in range(len(arrays))],
            reader=ArrayReader(arrays),
            classes=[str(label) for label in digits.target],
            class_names=tuple("0123456789"),
        )
