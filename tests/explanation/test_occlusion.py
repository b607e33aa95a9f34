"""Occlusion: what is covered counts, and nothing else."""

import dataclasses

import numpy as np
import pytest
from explained_network import explained

from imgclf.explanation import occlusion


def test_the_drop_is_that_of_covering_the_place_and_cells_are_means_of_their_patches(images):
    model = explained(**{"model.cnn.dense": (6,)})
    labels = np.array([0, 1])
    told = []
    found = occlusion.maps(model, images[:2], labels, on_batch=told.append)
    assert found.shape == (2, 14, 14)
    assert found.dtype == np.float32
    assert told == [1, 1]
    grey = np.round(255 * np.array(model.config.data.mean)).astype(np.uint8)
    covered = images[:2].copy()
    covered[:, :2, :2] = grey  # 16 pixels, 14 cells: the first patch, which alone covers the first cell
    before, after = (model.features_and_logits(shown)[1][np.arange(2), labels] for shown in (images[:2], covered))
    np.testing.assert_allclose(found[:, 0, 0], before - after, atol=1e-5)
    several = occlusion.maps(model, images[:2], np.array([[0, 2], [1, 2]]))
    np.testing.assert_allclose(several[:, 0], found, atol=1e-6)


@pytest.mark.slow
def test_of_a_picture_that_is_grey_already_nothing_drops():
    model = explained()
    grey = np.broadcast_to(np.round(255 * np.array(model.config.data.mean)).astype(np.uint8), (1, 16, 16, 3))
    assert np.abs(occlusion.maps(model, grey, np.array([1]))).max() < 1e-5


@pytest.mark.slow
def test_a_corner_that_decides_alone_is_found():
    """A network of one convolution whose weights see the red channel: a bright corner on grey is all that speaks."""
    model = explained(**{"model.cnn.widths": (4,)})
    image = np.broadcast_to(np.round(255 * np.array(model.config.data.mean)).astype(np.uint8), (1, 16, 16, 3)).copy()
    image[:, :4, :4] = 255
    label = int(np.argmax(model.features_and_logits(image)[1]))
    drop = np.abs(occlusion.maps(dataclasses.replace(model), image, np.array([label]))[0])
    assert drop[:4, :4].mean() > 5 * drop[8:, 8:].mean()
