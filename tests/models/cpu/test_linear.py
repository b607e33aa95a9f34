"""Linear layers and residual sums for the CPU are what autodiff makes of their plain forms."""

import jax
import numpy as np
import pytest

from imgclf.models import transformer
from imgclf.models.cpu import linear

NUMBERS = np.random.default_rng(0)


def normal(*shape):
    return NUMBERS.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "plain", "arguments"),
    [
        (linear.product, lambda x, kernel: x @ kernel, (normal(2, 5, 3), normal(3, 4))),
        (linear.product, lambda x, kernel: x @ kernel, (normal(5, 3), normal(3, 4))),
        (linear.add_bias, lambda x, bias: x + bias, (normal(2, 5, 4), normal(4))),
        (linear.add_bias, lambda x, bias: x + bias, (normal(5, 4), normal(4))),
        (linear.residual_sum, lambda x, y: x + y, (normal(2, 5, 4), normal(2, 5, 4))),
        (linear.attention, jax.nn.dot_product_attention, (normal(2, 5, 3, 4), normal(2, 7, 3, 4), normal(2, 7, 3, 4))),
        (transformer.gelu, lambda x: jax.nn.gelu(x, approximate=False), (3 * normal(2, 50),)),
    ],
    ids=["product", "product of rows", "bias", "bias of rows", "residual sum", "attention", "GELU"],
)
def test_values_and_gradients_are_the_plain_forms(ours, plain, arguments):
    def both(*arguments):
        found = []
        for function in (ours, plain):
            value, gradients = jax.vjp(function, *arguments)
            found.append((value, *gradients(weight * value)))
        return found

    weight = normal(*jax.eval_shape(plain, *arguments).shape)
    for one, other in zip(*jax.jit(both)(*arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
