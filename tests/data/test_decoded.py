"""What is kept of decoded images."""

import numpy as np

from imgclf.data.decoded import DecodedImages, bytes_when_shrunk


def test_first_come_stay_as_long_as_there_is_room():
    kept = DecodedImages()
    kept.most = 100
    image, other = np.zeros((4, 5, 3), np.uint8), np.ones((4, 5, 3), np.uint8)
    kept.add(0, 1, image)
    kept.add(0, 2, image)  # a PNG has no other scale: the same array, no more room
    assert (kept.bytes, len(kept), kept.factors()) == (60, 2, {1, 2})
    kept.add(1, 1, other)
    assert kept.get(1, 1) is None
    assert not kept.has_any(1)
    kept.add(0, 1, other)
    assert kept.get(0, 1) is image
    kept.add(1, 4, other[:2])
    assert kept.has_any(1)
    assert kept.bytes == 90


def test_room_is_asked_for_at_the_scale_that_is_shown():
    sizes = np.array([[480, 640], [100, 2000], [60_000, 60_000]], np.int32)
    assert bytes_when_shrunk(sizes, (120, 120)) == 3 * (480 * 640 // 16 + 100 * 2000 + 60_000**2 // 64)
