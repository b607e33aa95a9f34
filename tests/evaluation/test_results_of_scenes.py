"""What the headline says of new scenes."""

import pytest

from imgclf.evaluation.results import CROSS_VALIDATION, _of_scenes

TRAINING = {"val": {"of": 20, "shots": 0}, "test": {"of": 1000, "shots": 7}}


@pytest.mark.parametrize(
    ("split", "scenes", "said"),
    [
        ("test", 4, ["7 of 1,000 test photos are shots of a scene that training has, too: on new scenes the score would be lower."]),
        ("val", 4, ["The score is one on new scenes: no scene has shots both in training and in it."]),
        (CROSS_VALIDATION, 4, ["The score is one on new scenes: all shots of a scene are held out together."]),
        ("val", 0, []),
        (CROSS_VALIDATION, 0, []),
        ("train", 4, []),
    ],
)
def test_the_headline_says_whether_it_is_of_new_scenes(split, scenes, said):
    assert _of_scenes({"scenes": {"scenes": scenes, "in_training": TRAINING}}, split) == said
    assert _of_scenes({}, split) == []
