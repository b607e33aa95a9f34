"""MixUp, CutMix, soft labels, smoothing and class weights: timm's results, and the loss by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.config import default_config
from imgclf.training import mixing
from imgclf.training.mixing import Mix

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "timm_mixup.json").read_text())


def mixup(share: float) -> Mix:
    return Mix(jnp.float32(share), jnp.float32(share), jnp.zeros(4, jnp.int32))


def cutmix(share: float, y: int, x: int, size: tuple[int, int]) -> Mix:
    box = mixing.cut_box(share, y, x, size)
    return Mix(mixing.kept_share(box, size), jnp.float32(1), box)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{'cutmix' if case['cutmix'] else 'mixup'}-{case['share']}")
def test_images_and_labels_are_timms(case):
    image, label = np.array(GOLDEN["image"], np.float32), np.array(GOLDEN["label"])
    mix = cutmix(case["share"], case["y"], case["x"], image.shape[1:3]) if case["cutmix"] else mixup(case["share"])
    np.testing.assert_allclose(mixing.mix_images(image, mix), case["image"], atol=1e-3)
    targets = mixing.targets(label, GOLDEN["classes"], GOLDEN["smoothing"], mix=mix)
    np.testing.assert_allclose(targets, case["target"], atol=1e-6)


def test_a_share_of_one_is_no_mixing_at_all():
    image = np.random.default_rng(0).random((4, 6, 5, 3), np.float32)
    for mix in (mixup(1.0), cutmix(1.0, 3, 2, (6, 5))):
        np.testing.assert_array_equal(mixing.mix_images(image, mix), image)
        np.testing.assert_array_equal(
            mixing.targets(np.array([0, 1, 2, 0]), 3, 0.1, mix=mix), mixing.targets(np.array([0, 1, 2, 0]), 3, 0.1)
        )


@jax.jit
def cut(share: jax.Array, y: jax.Array, x: jax.Array) -> tuple[Mix, jax.Array]:
    """How two images of 13 x 24 pixels, a white and a black one, are cut."""
    mix = cutmix(share, y, x, (13, 24))
    return mix, mixing.mix_images(jnp.stack([jnp.ones((13, 24, 3)), jnp.zeros((13, 24, 3))]), mix)


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), y=st.integers(0, 12), x=st.integers(0, 23))
def test_the_label_has_the_share_of_the_pixels(share, y, x):
    mix, mixed = jax.device_get(cut(share, y, x))
    assert mixed[0].mean() == pytest.approx(float(mix.share), abs=1e-5)
    assert mixed[1].mean() == pytest.approx(1 - float(mix.share), abs=1e-5)
    assert float(mix.share) >= share - 1e-5  # the edges and whole pixels only take from the box


def test_draws():
    keys = jax.vmap(lambda step: mixing.step_key(jax.random.key(3), step))(jnp.arange(3000))
    draw = jax.jit(jax.vmap(lambda key, parameters: mixing.draw(key, (16, 24), parameters), in_axes=(0, None)))

    def drawn(**fields) -> Mix:
        config = default_config()
        config.augment.update(fields)
        return jax.device_get(draw(keys, mixing.parameters(config)))

    only = drawn(mixup=0.4)
    np.testing.assert_array_equal(only.share, only.weight)
    assert not only.box.any()
    assert only.share.mean() == pytest.approx(0.5, abs=0.02)  # a label is expected to keep half
    assert only.share.var() == pytest.approx(0.25 / 1.8, abs=0.01)  # of Beta(a, a): 1 / (4 (2a + 1))
    assert len(np.unique(only.share)) > 2500
    boxes = drawn(cutmix=1.0)
    assert (boxes.weight == 1).all()
    area = (boxes.box[:, 2] - boxes.box[:, 0]) * (boxes.box[:, 3] - boxes.box[:, 1])
    np.testing.assert_allclose(boxes.share, 1 - area / (16 * 24), atol=1e-6)
    both = drawn(mixup=0.4, cutmix=1.0, mix_switch=0.25, mix_probability=0.8)
    assert (both.weight != both.share).mean() == pytest.approx(0.25 * 0.8, abs=0.03)  # CutMix, but for empty boxes
    assert (both.share == 1).mean() == pytest.approx(0.2, abs=0.03)
    assert mixing.parameters(default_config()) is None


def test_the_loss_by_hand():
    rng = np.random.default_rng(1)
    logits, label, weights = rng.normal(size=(4, 3)).astype(np.float32), np.array([0, 1, 2, 2]), np.array([1.0, 2.0, 0.5], np.float32)
    log_p = np.asarray(jax.nn.log_softmax(logits))

    def of(label: np.ndarray) -> np.ndarray:
        return -(0.9 * log_p[np.arange(4), label] + 0.1 * log_p.mean(1))  # smoothed by 0.1

    plain = mixing.loss(logits, mixing.targets(label, 3, 0.1, weights))
    np.testing.assert_allclose(plain, (weights[label] * of(label)).sum() / weights[label].sum(), rtol=1e-6)
    own, other, share = weights[label], weights[label[::-1]], 0.7
    expected = (share * own * of(label) + (1 - share) * other * of(label[::-1])).sum() / (share * own + (1 - share) * other).sum()
    targets = mixing.targets(label, 3, 0.1, weights, mixup(share))
    np.testing.assert_allclose(mixing.loss(logits, targets), expected, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), share * own + (1 - share) * other, rtol=1e-6)
    unweighted = mixing.targets(label, 3, mix=mixup(share))
    np.testing.assert_allclose(unweighted.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixing.loss(logits, unweighted), optax.softmax_cross_entropy(logits, unweighted).mean(), rtol=1e-6)
    taught = 0.4 * np.asarray(jax.nn.softmax(rng.normal(size=(4, 3))), np.float32)
    targets = mixing.targets(label, 3, 0.1, weights, taught=taught)
    expected = (weights[label] * (0.6 * of(label) - (taught * log_p).sum(1))).sum() / weights[label].sum()
    np.testing.assert_allclose(mixing.loss(logits, targets), expected, rtol=1e-6)
    assert mixing.heavier(label, mixup(0.7)).tolist() == label.tolist()
    assert mixing.heavier(label, mixup(0.3)).tolist() == label[::-1].tolist()
