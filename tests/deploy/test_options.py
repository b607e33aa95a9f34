"""One set of checks for Python and the command."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.deploy.options import Options, check_on_error
from imgclf.errors import UserError


@pytest.mark.parametrize("name", ["top_k", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None, True, np.float32(2)])
def test_counts_are_whole_numbers_from_one(name, value):
    with pytest.raises(UserError, match=rf"{name}=.* is no whole number of at least 1: it is how many"):
        Options(**{name: value})


@pytest.mark.parametrize("value", [80, -0.1, math.nan, math.inf, "0.5", True, 1.0001])
def test_a_threshold_is_a_probability(value):
    with pytest.raises(UserError, match=r"threshold=.* is no probability from 0 to 1"):
        Options(threshold=value)


def test_percent_is_understood():
    with pytest.raises(UserError, match=r"did you mean 0\.8"):
        Options(threshold=80)


@given(top_k=st.integers(1, 10**9), threshold=st.one_of(st.none(), st.floats(0, 1)))
def test_numpy_numbers_become_python_s(top_k, threshold):
    options = Options(np.int64(top_k), np.int32(7), None if threshold is None else np.float64(threshold), np.True_)
    assert (options.top_k, options.batch_size, options.threshold, options.conformal) == (top_k, 7, threshold, True)
    assert all(type(value) in (int, float, bool, type(None)) for value in vars(options).values())


def test_what_happens_at_a_bad_image_is_one_of_two_things():
    assert check_on_error("row") == "row"
    with pytest.raises(UserError, match="'raise' ends the call"):
        check_on_error("skip")
