"""The scores that a report keeps for its thresholds: exact at every threshold, whatever the rounding."""

import base64
import gzip
import json

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from imgclf.reporting import thresholds

NAMES = ["</script>", "b", "ü"]


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 1000)), min_size=1, max_size=30))
def test_what_is_kept_gives_the_counts_at_every_threshold(rows):
    frame = pd.DataFrame(rows, columns=["true", "predicted", "probability"])
    frame["probability"] = frame["probability"].to_numpy(np.float32) / np.float32(1000)
    section = thresholds.section(frame, NAMES)
    assert json.loads(unpacked(section["names"])) == NAMES
    block = unpacked(section["scores"])
    counts = np.frombuffer(block, "<u4", 3)
    said = np.frombuffer(block, "<u4", len(rows), 12)
    reached = np.frombuffer(block, np.uint8, offset=12 + 4 * len(rows))
    true = np.repeat(np.arange(3), counts)
    exact = np.array([row[2] for row in rows])
    for step in (0, 1, 99, 100, 199, 200):
        for label, name in enumerate(NAMES):
            told = (frame["predicted"] == name).to_numpy() & (exact * thresholds.STEPS >= 1000 * step)
            assert ((said == label) & (reached >= step)).sum() == told.sum()
            assert ((said == label) & (true == label) & (reached >= step)).sum() == (told & (frame["true"] == name).to_numpy()).sum()


def test_images_of_unknown_class_are_left_out():
    frame = pd.DataFrame({"true": ["", "b"], "predicted": ["b", "b"], "probability": [0.5, 0.5]})
    assert thresholds.section(frame, NAMES)["images"] == 1
    assert thresholds.section(frame.head(1), NAMES) is None
    assert thresholds.section(None, NAMES) is None
