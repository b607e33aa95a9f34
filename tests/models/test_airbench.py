"""Airbench: the whitening of patches, the dirac start, its size, and a training that finds the first layer and freezes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from digits_experiment import digits_config
from flax import nnx
from rich.console import Console

from imgclf import config as config_lib
from imgclf.data import pipeline
from imgclf.data.prepare import prepare
from imgclf.methods import choice, resolve
from imgclf.methods.base import Task
from imgclf.models import airbench
from imgclf.models import create as create_model
from imgclf.models.network import Network
from imgclf.models.weights.conversion import flatten
from imgclf.training import sharding
from imgclf.training.initialization import initialize_from_images
from imgclf.training.state import count_parameters, split_model
from imgclf.training.step import normalize

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth ones, whose neighbouring pixels and channels go together as those of photos do."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((40, 5, 5, 3)) + rng.standard_normal((40, 5, 5, 1))
    return np.asarray(jax.image.resize(coarse, (40, 16, 16, 3), "bilinear"), np.float32)


def test_whitened_patches_are_uncorrelated_with_variance_1_or_less(images):
    kernel = airbench.whitening_kernel(images)
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    out = np.asarray(airbench.layers.conv2d(jnp.asarray(images), jnp.asarray(kernel[..., :12])), np.float64).reshape(-1, 12)
    moments = out.T @ out / len(out)
    np.testing.assert_allclose(moments, np.diag(np.diag(moments)), atol=1e-3)
    variances = np.diag(moments)
    assert (np.diff(variances) <= 1e-3).all()  # the floor takes most from the smallest
    assert variances[0] == pytest.approx(1, abs=1e-3)
    assert variances.max() < 1 + 1e-3


def test_dirac_kernels_pass_their_input_on(images):
    kernel = airbench.dirac(jax.random.key(0), (3, 3, 3, 8))
    out = airbench.layers.conv2d(jnp.asarray(images), kernel, padding=airbench.layers.same_padding(3))
    np.testing.assert_array_equal(out[..., :3], images)
    assert np.abs(kernel[..., 3:]).max() <= 1 / np.sqrt(27)
    assert np.unique(kernel[..., 3:]).size == 3 * 3 * 3 * 5
    assert airbench.dirac(jax.random.key(0), (3, 3, 8, 3))[1, 1, :3].tolist() == np.eye(3).tolist()


def test_with_ten_classes_it_has_the_papers_parameters():
    def build() -> Network:
        backbone = airbench.airbench94(rngs=nnx.Rngs(0))
        return Network(backbone, airbench.HEAD(backbone.map_size(32, 32), backbone.features, 10, rngs=nnx.Rngs(0)))

    network = nnx.eval_shape(build)
    assert network.backbone.map_size(32, 32) == (1, 1)
    assert count_parameters(split_model(network)[1]) == 1_971_640


def test_the_config_states_the_originals_rates():
    """Its rate of a summed loss, 11.5 / 1024 / (1 + 1 / 0.15), is 1.5 for a mean over 1,024; its decay stands there by that rate."""
    config = resolve.check(config_lib.load_config("cifar10_airbench"))
    assert config.optimizer.learning_rate == pytest.approx(1.5)
    kilostep = 1024 * (1 + 1 / 0.15)
    torch_decay, torch_rate = 0.0153 * 1024 / kilostep, 11.5 / kilostep
    assert config.optimizer.weight_decay * config.optimizer.learning_rate == pytest.approx(torch_decay / torch_rate / 1024 * 1.5)
    (biases, rate), _ = config.optimizer.lr_table
    assert (biases, rate) == (*config.optimizer.weight_decay_table[0][:1], 64.0)


def airbench_config(**changes):
    config = digits_config(**changes)
    config.model.name, config.model.head.kind = "airbench_tiny", "family"
    config.data.image_size, config.train.duration = (32, 32), "2 steps"
    config.freeze.preset, config.freeze.table = "table", (("backbone/whiten/kernel", True), (".*", False))
    config.augment.flip, config.augment.flip_alternating = 0.5, True
    return config


@pytest.mark.slow
def test_training_whitens_by_its_own_images_and_leaves_that_layer_alone(tmp_path):
    prepared = prepare(resolve.check(airbench_config()))
    config = resolve.resolve(prepared.config, 10)
    model = create_model(config, 10)
    fresh = np.array(model.backbone.whiten.kernel[...])
    initialize_from_images(config, model, prepared.dataset)
    whitened = np.array(model.backbone.whiten.kernel[...])
    assert not np.allclose(whitened, fresh)
    (tmp_path / "checkpoints").mkdir()
    task = Task(config, prepared.dataset, create_model(config, 10), sharding.create_mesh(), QUIET)
    kept = flatten(choice.check(task).train(tmp_path).params)
    np.testing.assert_array_equal(kept["backbone/whiten/kernel"], whitened)
    assert not np.array_equal(kept["backbone/group1/conv1/kernel"], model.backbone.group1.conv1.kernel[...])


def test_the_first_layer_is_found_from_the_training_images_alone():
    prepared = prepare(resolve.check(airbench_config()))
    config = resolve.resolve(prepared.config, 10)
    model = create_model(config, 10)
    initialize_from_images(config, model, prepared.dataset)
    rows = np.flatnonzero((prepared.dataset.table["split"] == "train").to_numpy())
    with pipeline.row_batches(prepared.dataset, config, rows) as batches:
        shown = np.concatenate([normalize(batch["image"][batch["mask"]], config.data.mean, config.data.std) for batch in batches])
    np.testing.assert_allclose(model.backbone.whiten.kernel[...], airbench.whitening_kernel(shown), atol=1e-5)


def test_a_network_without_such_a_layer_is_left_as_it_is():
    config = resolve.resolve(resolve.check(digits_config()), 10)
    model = create_model(config, 10)
    before = jax.tree.map(np.array, split_model(model)[1])
    initialize_from_images(config, model, prepare(digits_config()).dataset)
    jax.tree.map(np.testing.assert_array_equal, before, split_model(model)[1])
