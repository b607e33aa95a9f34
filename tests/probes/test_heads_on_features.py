"""A classifier's head over pooled features."""

import numpy as np
import pytest
import scipy.special
from blobs import blobs
from flax import nnx

from imgclf.models.heads import DenseHead, NormHead
from imgclf.probes.cross_validation import CrossValidation, fit_linear
from imgclf.probes.heads import head_logits, linear_head, rescaled
from imgclf.training.state import split_model


def test_a_sigmoid_unit_gives_the_same_probabilities():
    x, labels = blobs(40, 6, 2, 5)
    found = fit_linear(x, labels, CrossValidation.create(labels, None, "ab", (0.1,), 5, 0))
    head = linear_head(found, "sigmoid")
    unit = scipy.special.expit(x @ head["kernel"] + head["bias"])[:, 0]
    np.testing.assert_allclose(unit, scipy.special.softmax(x @ found.kernel + found.bias, axis=1)[:, 1], atol=1e-5)


@pytest.mark.parametrize("kind", ["norm", "unit length"])
def test_a_head_that_rescales_features_is_solved_behind_that(kind):
    head = NormHead((1, 1), 8, 3, rngs=nnx.Rngs(0)) if kind == "norm" else DenseHead((1, 1), 8, 3, normalize=True, rngs=nnx.Rngs(0))
    if kind == "norm":
        head.norm.scale[...] = np.arange(1, 9, dtype=np.float32)
    rng = np.random.default_rng(0)
    pooled, kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((20, 8), (8, 3), (3,)))
    solved = split_model(head)[1] | {"logits": {"kernel": kernel, "bias": bias}}
    expected = rescaled(head, pooled) @ kernel + bias
    np.testing.assert_allclose(head_logits(head, solved, {}, pooled), expected, atol=1e-5)
    if kind == "unit length":
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        np.testing.assert_allclose(head_logits(head, solved, {}, pooled), unit @ kernel + bias, atol=1e-5)
        np.testing.assert_array_equal(head_logits(head, solved, {}, np.zeros((1, 8), np.float32)), bias[None])
