"""Decoded images that stay in memory as long as their reader, so that later epochs need not decode them again.

They are kept as they are first needed, decoded as they would be anyway, so that pixels do not depend on whether they fit.
"""

import threading
import weakref

import numpy as np

from imgclf.data.readers import ImageReader

FACTORS = (1, 2, 4, 8)  # by which JPEGs can be decoded smaller


class DecodedImages:
    """Decoded images by (row, factor), as many as fit in a number of bytes; those that came first stay.

    Batches are made in several threads, which share it.
    """

    def __init__(self) -> None:
        self.most = 0  # bytes; each stream of batches sets what its config allows
        self.bytes = 0
        self._images: dict[tuple[int, int], np.ndarray] = {}
        self._adding = threading.Lock()

    def get(self, row: int, factor: int) -> np.ndarray | None:
        """The image at 1 / `factor` of its size, uint8 [h, w, 3]; None where it is not kept."""
        return self._images.get((row, factor))

    def has_any(self, row: int) -> bool:
        """Whether the image is there at some scale, which is most often the one that is needed."""
        return any((row, factor) in self._images for factor in FACTORS)

    def add(self, row: int, factor: int, image: np.ndarray) -> np.ndarray:
        """Keeps an image, if there is room. One that is kept as another factor's already takes no more room.

        Returns:
          The image that was kept before, if there is one, else this one.
        """
        with self._adding:
            if (kept := self._images.get((row, factor))) is not None:
                return kept
            size = 0 if any(self._images.get((row, other)) is image for other in FACTORS) else image.nbytes
            if self.bytes + size <= self.most:
                self._images[row, factor] = image
                self.bytes += size
            return image

    def factors(self) -> set[int]:
        """The factors of all images that are kept."""
        return {factor for _, factor in self._images}

    def __len__(self) -> int:
        return len(self._images)


_OF_READERS: dict[int, DecodedImages] = {}


def of_reader(reader: ImageReader) -> DecodedImages:
    """What is kept of a reader's images; freed with the reader."""
    key = id(reader)
    if key not in _OF_READERS:
        _OF_READERS[key] = DecodedImages()
        weakref.finalize(reader, _OF_READERS.pop, key, None)
    return _OF_READERS[key]


def bytes_when_shrunk(sizes: np.ndarray, shown: tuple[int, int]) -> int:
    """Bytes of images at the smallest scale of a JPEG at which a whole image still has every pixel that is shown.

    Args:
      sizes: int [n, 2], heights and widths.
      shown: height and width of what a network is shown.
    """
    wide = sizes.astype(np.int64)
    shrink = (wide / np.asarray(shown)).min(1)
    factor = np.select([shrink >= 8, shrink >= 4, shrink >= 2], [8, 4, 2], 1)
    return int((3 * wide.prod(1) // factor**2).sum())
