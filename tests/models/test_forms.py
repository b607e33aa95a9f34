"""The forms of layers and the dtypes of networks go by the devices that a program is for, not by those of the process that traces it."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from networks import created, described

from imgclf.config import default_config
from imgclf.models import forms, layers, transformer


@pytest.mark.parametrize(("platform", "dtype"), [("cpu", jnp.float32), ("cuda", jnp.bfloat16), ("tpu", jnp.bfloat16)])
@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_bfloat16_stays_bfloat16_where_the_program_is_for_an_accelerator(platform, dtype, precision):
    config = default_config()
    config.model.precision = precision
    with forms.on_devices_of(described(platform)):
        model = nnx.eval_shape(lambda: created(config, 3))
    convs = [layer for _, layer in nnx.iter_modules(model.backbone) if isinstance(layer, layers.Conv)]
    assert {model.dtype, *(conv.dtype for conv in convs)} == {dtype}
    rounded = platform == "cpu" and precision == "bf16"  # a form of the CPU's, which keeps the activations in float32
    assert any(conv.bf16_products for conv in convs) == rounded


def test_only_the_form_of_the_programs_devices_is_traced():
    def refused(x):
        raise AssertionError

    for platform in ("cuda", "tpu"):
        with forms.on_devices_of(described(platform)):
            assert forms.by_platform(1.0, cpu=refused, default=lambda x: x) == 1.0
            assert not forms.on_one_cpu()
    with forms.on_devices_of(described("cpu", 2)):
        assert forms.by_platform(1.0, cpu=lambda x: x, default=refused) == 1.0
        assert not forms.on_one_cpu()
    with forms.on_devices_of(described("cpu", 1)):
        assert forms.on_one_cpu()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_attention_has_the_form_of_the_programs_devices(platform):
    tokens = jax.ShapeDtypeStruct((2, 5, 2, 8), jnp.bfloat16)
    out = jax.eval_shape(forms.on_devices_of(described(platform))(transformer.attend), tokens, tokens, tokens)
    assert out.dtype == (jnp.float32 if platform == "cpu" else jnp.bfloat16)  # the CPU's is written for float32
