"""The loss, normalisation, hashes, and the evaluation of several views."""

import jax.numpy as jnp
import numpy as np
import pytest
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


@pytest.mark.parametrize("head", ["average", "average, dense", "flatten"])
def test_several_views_are_averaged_as_features_where_the_head_takes_features_else_as_logits(head):
    changes = {"model.cnn.flatten": head == "flatten", "model.cnn.dense": (16,) if head == "average, dense" else ()}
    config = digits_config(**changes, **{"data.mean": (0.5, 0.5, 0.5), "data.std": (0.5, 0.5, 0.5)})
    model = created(config, 10)
    graphdef, params, batch_stats = split_model(model)
    eval_step = step.make_eval_step(config, graphdef, sharding.create_mesh())
    views = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8, 3), np.uint8)

    def logits(image):
        batch = {"image": image, "label": np.zeros(4, np.int32), "index": np.arange(4), "mask": np.ones(4, bool)}
        return np.asarray(eval_step(params, batch_stats, batch)["logits"])

    of_each = np.stack([logits(views[:, view]) for view in range(3)])
    assert np.abs(of_each[0] - of_each[1]).max() > 1e-3
    features = [model.features(step.normalize(views[:, view], config.data.mean, config.data.std)) for view in range(3)]
    of_features = model.head(np.mean(features, 0)[:, None, None]) if head != "flatten" else of_each.mean(0)
    np.testing.assert_allclose(logits(views), of_features, atol=1e-5)

    with_features = step.make_eval_step(config, graphdef, sharding.create_mesh(), features=True)
    for image, expected in ((views, np.mean(features, 0)), (views[:, 1], features[1])):
        batch = {"image": image, "label": np.zeros(4, np.int32), "index": np.arange(4), "mask": np.ones(4, bool)}
        found = with_features(params, batch_stats, batch)
        np.testing.assert_allclose(found["features"], expected, atol=1e-5)
        np.testing.assert_allclose(found["logits"], logits(image), atol=1e-5)
    same = np.allclose(of_features, of_each.mean(0), atol=1e-4)  # a linear head gives the same either way
    assert same == (head != "average, dense")
