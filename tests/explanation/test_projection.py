"""The map: the same for the same features, and neighbours stay together."""

import numpy as np
import pytest

from imgclf.explanation import projection


@pytest.mark.slow
def test_clusters_stay_together_and_the_map_is_the_same_again():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), 8)
    features = (np.eye(3, 20)[label] * 5 + rng.normal(0, 0.3, (24, 20))).astype(np.float32)
    points = projection.project(features)
    assert points.shape == (24, 2)
    assert points.dtype == np.float32
    assert points.min() == 0
    assert points.max() == 1
    np.testing.assert_array_equal(points, projection.project(features))
    centre = np.stack([points[label == k].mean(0) for k in range(3)])
    assert (np.square(points[:, None] - centre).sum(-1).argmin(1) == label).all()
    assert projection.neighbours_kept(features, points, 7) > 0.8
    with pytest.raises(ValueError, match="4 points make no map"):
        projection.project(features[:4])


def test_a_perfect_map_keeps_all_neighbours():
    rng = np.random.default_rng(1)
    angles = np.sort(rng.uniform(0, 1.5, 30))
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert projection.neighbours_kept(features, features, 5) == pytest.approx(1, abs=0.03)
    assert projection.neighbours_kept(features, features[rng.permutation(30)], 5) < 0.5
