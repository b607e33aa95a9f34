"""What the training step does to images: colour, erasing, mixing, in this order."""

import jax.numpy as jnp
import numpy as np

from imgclf.data.augment import color
from imgclf.training import batch_augment, mixing
from imgclf.training.step import normalize

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (4, 12, 10, 3), np.uint8)


def test_images_alone_are_as_they_are():
    np.testing.assert_array_equal(batch_augment.augmented({"image": IMAGE}, MEAN, STD), IMAGE.astype(np.float32))
    batch = {"image": IMAGE, "label": 1, "index": 2, "mask": 3, "color": np.tile(color.IDENTITY, (4, 1, 1)), "erase": np.zeros((4, 2, 4))}
    assert batch_augment.inputs(batch).keys() == {"image", "label", "color", "erase"}
    np.testing.assert_array_equal(batch_augment.augmented(batch, MEAN, STD), IMAGE.astype(np.float32))


def test_colour_is_what_is_written_to_disk_but_for_rounding():
    drawn = [color.Color(brightness=1.3), color.Color(hue=70.0, contrast=1.5), color.Color(grayscale=True), color.Color()]
    matrices = np.stack([color.matrix(one, image) for one, image in zip(drawn, IMAGE, strict=True)])
    out = np.asarray(batch_augment.augmented({"image": IMAGE, "color": matrices}, MEAN, STD))
    written = np.stack([color.apply(image, matrix) for image, matrix in zip(IMAGE, matrices, strict=True)])
    np.testing.assert_allclose(out, written, atol=0.51)
    assert out.max() == 255
    assert out.min() == 0


def test_what_is_erased_is_zero_or_noise_after_normalisation():
    boxes = np.zeros((4, 2, 4), np.int32)
    boxes[0] = [[2, 3, 7, 9], [0, 0, 4, 4]]
    boxes[1, 1] = [0, 0, 12, 10]
    inside = np.zeros((4, 12, 10), bool)
    inside[0, 2:7, 3:9] = inside[0, :4, :4] = inside[1] = True
    batch = {"image": IMAGE, "erase": boxes}
    out = np.asarray(normalize(batch_augment.augmented(batch, MEAN, STD), MEAN, STD))
    np.testing.assert_allclose(out[inside], 0, atol=1e-6)
    np.testing.assert_array_equal(out[~inside], np.asarray(normalize(jnp.asarray(IMAGE), MEAN, STD))[~inside])
    seeds = np.array([5, 6, 7, 8], np.uint32)
    noisy = np.asarray(normalize(batch_augment.augmented(batch | {"erase_seed": seeds}, MEAN, STD), MEAN, STD))
    assert abs(noisy[inside].mean()) < 0.15
    assert abs(noisy[inside].std() - 1) < 0.15
    np.testing.assert_array_equal(noisy[~inside], out[~inside])
    swapped = {name: value[[1, 0]] for name, value in (batch | {"erase_seed": seeds}).items()}
    alone = normalize(batch_augment.augmented(swapped, MEAN, STD), MEAN, STD)
    np.testing.assert_array_equal(alone, noisy[[1, 0]])  # noise belongs to the image, not to its place


def test_mixing_comes_last():
    boxes, matrices = np.zeros((4, 1, 4), np.int32), np.tile(color.IDENTITY, (4, 1, 1))
    boxes[0], matrices[0] = [0, 0, 12, 10], 0
    mix = mixing.Mix(jnp.float32(0.25), jnp.float32(0.25), jnp.zeros(4, jnp.int32))
    out = np.asarray(batch_augment.augmented({"image": IMAGE, "erase": boxes, "color": matrices}, MEAN, STD, mix))
    np.testing.assert_allclose(out[0], 0.25 * 255 * np.array(MEAN) + 0.75 * IMAGE[3], atol=1e-3)
    np.testing.assert_allclose(out[3], 0.25 * IMAGE[3] + 0.75 * 255 * np.array(MEAN), atol=1e-3)
    np.testing.assert_allclose(out[1], 0.25 * IMAGE[1] + 0.75 * IMAGE[2].astype(float), atol=1e-3)
