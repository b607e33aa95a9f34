"""Nearest neighbours: exact, in order, whatever the chunks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.explanation import neighbours


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 6), st.integers(1, 8), st.integers(1, 64), st.integers(0, 2**31))
def test_it_is_the_order_of_the_cosines_and_of_the_rows_where_these_are_equal(count, queries, k, entries, seed):
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, (count, 2)).astype(np.float32)  # few directions: many ties
    query = rng.integers(-2, 3, (queries, 2)).astype(np.float32)
    before, neighbours._ENTRIES = neighbours._ENTRIES, entries
    try:
        found = neighbours.nearest(features, query, k)
    finally:
        neighbours._ENTRIES = before
    lengths = [np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (features, query)]
    cosines = (query / lengths[1]) @ (features / lengths[0]).T
    expected = np.argsort(-np.round(cosines, 5), axis=1, kind="stable")[:, :k]
    assert found.rows.shape == found.similarity.shape == (queries, min(k, count))
    np.testing.assert_allclose(found.similarity, np.take_along_axis(cosines, expected, 1), atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, found.rows, 1), found.similarity, atol=1e-5)


def test_equally_near_ones_come_by_their_row():
    features = np.array([[0, 1], [1, 0], [2, 0], [1, 0]], np.float32)
    assert neighbours.nearest(features, np.array([[3, 0]], np.float32), 2).rows.tolist() == [[1, 2]]
