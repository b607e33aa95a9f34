"""The loss, normalisation, hashes, and flipped evaluation."""

import jax.numpy as jnp
import numpy as np
from digits_experiment import digits_config
from networks import created

from imgclf.training import sharding, step
from imgclf.training.state import split_model, tree_sha256


def test_cross_entropy_by_hand():
    logits, labels = jnp.array([[2.0, 0.0, -1.0]]), jnp.array([0])
    log_p = np.log(np.exp([2.0, 0, -1]) / np.exp([2.0, 0, -1]).sum())
    np.testing.assert_allclose(step.cross_entropy(logits, labels)[0], -log_p[0], rtol=1e-6)
    smoothed = -(0.9 * log_p[0] + 0.1 * log_p.mean())
    np.testing.assert_allclose(step.cross_entropy(logits, labels, 0.1)[0], smoothed, rtol=1e-6)


def test_normalize():
    image = np.array([[[[0, 128, 255]]]], np.uint8)
    expected = (image / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(step.normalize(jnp.asarray(image), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), expected, rtol=1e-5, atol=1e-6)


def test_the_hash_sees_names_shapes_types_and_bytes_but_not_order():
    tree = {"a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}
    same = tree_sha256({"b": tree["b"], "a": jnp.asarray(tree["a"])})
    assert tree_sha256(tree) == same
    for other in (
        {"a": tree["a"], "c": tree["b"]},
        {"a": tree["a"].reshape(1, 2), "b": tree["b"]},
        {"a": tree["a"].astype(np.int32), "b": tree["b"]},
        {"a": tree["a"], "b": np.nextafter(tree["b"], np.float32(2))},
    ):
        assert tree_sha256(other) != same


def test_a_flipped_evaluation_is_the_mean_over_image_and_mirror_image():
    config = digits_config(**{"data.mean": (0.5, 0.5, 0.5), "data.std": (0.5, 0.5, 0.5)})
    mesh = sharding.create_mesh()
    graphdef, params, batch_stats = split_model(created(config, 10))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (4, 8, 8, 3), np.uint8), "label": np.zeros(4, np.int32)}
    batch |= {"index": np.arange(4), "mask": np.ones(4, bool)}

    def logits(**changes):
        return step.make_eval_step(config, graphdef, mesh)(params, batch_stats, batch | changes)["logits"]

    plain, mirrored = logits(), logits(image=batch["image"][:, :, ::-1])
    assert np.abs(plain - mirrored).max() > 1e-3
    config.eval.flip = True
    np.testing.assert_allclose(logits(), (plain + mirrored) / 2, atol=1e-6)
    np.testing.assert_allclose(logits(), logits(image=batch["image"][:, :, ::-1]), atol=1e-6)
