"""Sums over images, in loops that the compiler vectorises."""

import jax
import numpy as np
import pytest

from imgclf.models.cpu import convolution


@pytest.mark.parametrize("images", [1, 16, 17, 40, 272])  # 272: more sums of sixteen than are added up in one loop
def test_any_number_of_images_is_summed(images):
    maps = np.random.default_rng(0).standard_normal((2, images, 3, 4, 5)).astype(np.float32)
    sums = jax.jit(convolution.image_sums)(*maps)
    np.testing.assert_allclose(sums, maps.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_means_over_pixels_and_their_gradient():
    maps, grad = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((3, 7, 9, 5), (3, 5)))
    means, gradient = jax.vjp(jax.jit(convolution.pixel_means), maps)
    np.testing.assert_allclose(means, maps.mean((1, 2), dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient(grad)[0], np.broadcast_to(grad[:, None, None] / 63, maps.shape), rtol=1e-6)
