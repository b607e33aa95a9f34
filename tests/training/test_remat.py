"""Which modules are computed again. That the results stay the same is tested in test_mesh.py."""

import functools

import jax
import numpy as np
import pytest
from digits_experiment import digits_config
from flax import nnx
from networks import created

from imgclf.errors import UserError
from imgclf.training import remat
from imgclf.training.state import make_apply_fn, split_model


@pytest.fixture(scope="module")
def model():
    config = digits_config(**{"model.name": "resnet_tiny", "data.image_size": (32, 32)})
    return nnx.eval_shape(lambda: created(config, 3))


def test_the_first_row_counts_and_the_outermost_module(model):
    table = (("backbone/stage1", "none"), ("backbone/stage[12]", "all"), ("backbone/.*/conv1", "cheap"))
    found = dict(remat.resolve(table, model))
    assert found.pop("backbone/stage2") == "all"
    assert found == {f"backbone/stage{stage}/0/conv1": "cheap" for stage in (1, 3, 4)}


def test_a_row_without_a_module_is_told(model):
    with pytest.raises(UserError, match=r"train.remat has a row 'backbone/stagf1' that matches no module; near misses: backbone/stage1"):
        remat.resolve((("backbone/stagf1", "all"),), model)


def test_modules_are_computed_again_and_are_themselves_afterwards():
    graphdef, params, batch_stats = split_model(nnx.eval_shape(lambda: created(digits_config(), 3)))
    image = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)

    def gradient(rows: remat.Rows) -> str:
        apply = make_apply_fn(graphdef, functools.partial(remat.applied, rows))

        def loss(params, batch_stats, image):
            logits, new = apply(params, batch_stats, image, train=True, key=jax.random.key(0))
            return logits.sum(), new

        traced = jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, batch_stats, image)
        assert len(traced.jaxpr.outvars) == len(jax.tree.leaves((params, batch_stats)))
        return str(traced)

    assert gradient(()).count("prevent_cse=") == 0
    assert gradient((("backbone", "cheap"), ("head/dense0", "all"))).count("prevent_cse=") == 2
