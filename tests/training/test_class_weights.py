"""Weights of classes: the rules, and names of any kind."""

import numpy as np
import pytest
from digits_experiment import digits_config
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from imgclf.errors import UserError
from imgclf.training.class_weights import class_weights, parse

NAMES = ("cat", "dog", "owl")
COUNTS = np.array([50, 30, 20])


def weights(rule: str):
    return class_weights(digits_config(**{"train.class_weights": rule}), NAMES, COUNTS)


def test_class_weight_rules():
    assert weights("none") is None
    labels = np.repeat([0, 1, 2], COUNTS)
    np.testing.assert_allclose(weights("balanced"), compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6)
    np.testing.assert_allclose(weights("turicreate"), (1 / COUNTS) / (1 / COUNTS).sum(), rtol=1e-6)
    np.testing.assert_allclose(weights("dog=2.5, owl=0"), [1, 2.5, 0])


@pytest.mark.parametrize(
    ("rule", "message"), [("balancd", "did you mean 'balanced'"), ("dgo=1", "did you mean 'dog'"), ("dog=-1", "0 or more")]
)
def test_bad_class_weights_are_refused(rule, message):
    with pytest.raises(UserError, match=message):
        weights(rule)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a=b'=2, dog=1", {"a=b": 2, "dog": 1}),
        ("a=b=2", {"a=b": 2}),
        (""""cat, big" = 0.5,dog=1e-1""", {"cat, big": 0.5, "dog": 0.1}),
        ("bird's nest=3", {"bird's nest": 3}),
        (r"""'it\'s, "so"' = 3""", {'it\'s, "so"': 3}),
        ("\"'quoted'\"=1", {"'quoted'": 1}),
    ],
)
def test_names_with_commas_equals_signs_and_quotes(text, expected):
    assert parse(text) == expected


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1e6), min_size=1))
def test_any_name_in_quotes_is_read_back(weights):
    def quoted(name: str) -> str:
        return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"

    assert parse(", ".join(f"{quoted(name)}={weight}" for name, weight in weights.items())) == weights


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat=1, dog", "can't be read from 'dog' on"),
        ("'cat=1", "can't be read from"),
        ("'cat, big'=1 dog=2", "can't be read from"),
        ("cat=1, cat=2", "'cat' twice"),
        ("cat=many", "must be a number"),
        ("cat=nan", "must be a number"),
        ("cat=inf", "must be a number"),
        ("=1", "can't be read"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text, message):
    with pytest.raises(UserError, match=message):
        parse(text)
