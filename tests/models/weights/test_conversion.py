"""Conversion: layouts against the operations' definitions, and one report of everything that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import conversion
from imgclf.models.weights.conversion import batch_norm, conv, convert, linear, linear_chw, same

few = settings(deadline=None, derandomize=True, max_examples=8)
sizes = st.integers(1, 4)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@few
@given(sizes, sizes, sizes, sizes)
def test_linear_layers_of_torch(outputs, channels, height, width):
    x, weight = normal(2, channels, height, width), normal(outputs, channels * height * width, seed=1)
    expected = x.reshape(2, -1) @ weight.T
    ours = x.transpose(0, 2, 3, 1).reshape(2, -1) @ linear_chw(height, width)(weight)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    np.testing.assert_allclose(x[..., 0, 0] @ linear(normal(outputs, channels, seed=2)), x[..., 0, 0] @ normal(outputs, channels, seed=2).T)


@few
@given(sizes, sizes, sizes)
def test_convolutions_of_torch(outputs, channels, kernel):
    x, weight = normal(1, channels, 5, 6), normal(outputs, channels, kernel, kernel, seed=1)
    torch_layout = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    ours = lax.conv_general_dilated(x.transpose(0, 2, 3, 1), conv(weight), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(ours, torch_layout.transpose(0, 2, 3, 1), atol=1e-5)


def test_keras_depthwise_kernels_keep_the_multiplier_inside_the_channel():
    x, kernel = normal(1, 4, 4, 3), normal(2, 2, 3, 2, seed=1)
    ours = lax.conv_general_dilated(
        x, conversion.keras_depthwise(kernel), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    for channel in range(3):
        for i in range(2):
            expected = sum(x[0, a : a + 3, b : b + 3, channel] * kernel[a, b, channel, i] for a in range(2) for b in range(2))
            np.testing.assert_allclose(ours[0, :, :, 2 * channel + i], expected, atol=1e-5)


RULES = (
    (r"stem\.weight", "backbone/stem/kernel", conv),
    *batch_norm(r"bn(\d)", r"backbone/bn\1"),
    (r"fc\.weight", "head/logits/kernel", linear),
    (r"fc\.bias", "head/logits/bias", same),
    (".*", "backbone/never/reached", same),
)
PARAMS = conversion.nest(
    {
        "backbone/stem/kernel": np.zeros((3, 3, 2, 4)),
        "backbone/bn1/scale": np.zeros(4),
        "backbone/bn1/bias": np.zeros(4),
        "head/logits/kernel": np.zeros((4, 5)),
        "head/logits/bias": np.zeros(5),
    }
)
STATS = conversion.nest({"backbone/bn1/mean": np.zeros(4), "backbone/bn1/var": np.zeros(4)})


def tensors() -> dict[str, np.ndarray]:
    shapes = {"stem.weight": (4, 2, 3, 3), "bn1.weight": 4, "bn1.bias": 4, "bn1.running_mean": 4, "bn1.running_var": 4}
    shapes |= {"fc.weight": (5, 4), "fc.bias": 5}
    values = {name: np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, (name, shape) in enumerate(shapes.items())}
    return values | {"bn1.num_batches_tracked": np.int64(7)}


def test_every_tensor_finds_its_place():
    given = tensors()
    params, stats = convert(given, RULES[:-1], PARAMS, STATS)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, PARAMS)
    assert jax.tree.map(np.shape, stats) == jax.tree.map(np.shape, STATS)
    assert params["backbone"]["stem"]["kernel"][1, 2, 0, 3] == given["stem.weight"][3, 0, 1, 2]
    np.testing.assert_array_equal(stats["backbone"]["bn1"]["var"], given["bn1.running_var"])


def test_the_first_rule_that_matches_wins():
    params, _ = convert(tensors(), RULES, PARAMS, STATS)
    assert "never" not in params["backbone"]


def test_a_replaced_head_is_left_out():
    params, _ = convert(tensors() | {"fc.bias": np.zeros(99, np.float32)}, RULES[:-1], PARAMS, STATS, left_out="head/")
    assert "head" not in params


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_floating_point_of_any_width_becomes_float32(dtype):
    given = tensors()
    given["fc.bias"] = np.asarray(jnp.arange(5.0).astype(dtype)) if dtype == "bfloat16" else np.arange(5.0, dtype=dtype)
    params, _ = convert(given, RULES[:-1], PARAMS, STATS)
    assert params["head"]["logits"]["bias"].dtype == np.float32
    np.testing.assert_array_equal(params["head"]["logits"]["bias"], np.arange(5))


def test_all_that_is_wrong_is_told_at_once_with_near_misses():
    given = tensors()
    given["backbone.stem.kernels"] = given.pop("stem.weight")
    given["fc.weight"] = given["fc.weight"].T
    given["fc.bias"] = np.arange(5)
    given["bn1.weight"] = np.full(4, np.nan, np.float32)
    given["bn1.bias"] = np.zeros((2, 2), np.float32)
    with pytest.raises(UserError) as error:
        convert(given, RULES[:-1], PARAMS, STATS)
    message = str(error.value)
    assert "1 of the model's tensors are missing (backbone/stem/kernel, near backbone.stem.kernels)" in message
    assert "1 of the file's tensors have no place in the model (backbone.stem.kernels)" in message
    assert "4 don't fit" in message
    assert "fc.weight is [4, 5], that is [5, 4] here, where the model has [4, 5]" in message
    assert "and 1 more" in message


@pytest.mark.parametrize(("value", "told"), [(np.arange(5), "fc.bias is int64"), (np.array([0, np.inf] * 2 + [0], "f4"), "not finite")])
def test_a_wrong_tensor_is_named(value, told):
    with pytest.raises(UserError, match=told):
        convert(tensors() | {"fc.bias": value}, RULES[:-1], PARAMS, STATS)


def test_two_tensors_for_one_place_are_an_error():
    rules = ((r"copy", "head/logits/bias", same), *RULES[:-1])
    with pytest.raises(UserError, match=r"no place in the model \((copy|fc.bias)\)"):
        convert(tensors() | {"copy": np.zeros(5, np.float32)}, rules, PARAMS, STATS)


def test_published_weights_name_a_model_a_layout_and_a_way_to_get_them():
    known = registry.weights()
    for name, entry in known.items():
        assert entry.layout in registry.family(entry.model).conversion, name
        assert name.count("/") == 1, name
        assert entry.repo or entry.source, name
        assert min(entry.std) > 0, name
        assert 0 <= min(entry.mean) <= max(entry.mean) < 1, name  # some take pixels as they are, mean 0
    listed = [entry.name for family in registry.families() for entry in family.weights]
    assert len(listed) == len(set(listed))
