"""The training step of every family as it goes to a TPU's or a GPU's compiler, without any such device or its plugin.

In bfloat16 no operand of a convolution is wider, in float32 none is narrower; the state's memory is taken over whole. The forms of the CPU
can't be told from the text: tests/models/test_forms.py shows that they aren't even traced.
"""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from imgclf import models
from imgclf.config import default_config
from imgclf.methods import resolve
from imgclf.models import forms, registry
from imgclf.training import batch_augment, freeze, phases, sharding
from imgclf.training.state import TrainState, split_model

BATCH, CLASSES = 8, 10
TINY = ["cnn"] + [name for each in registry.families() for name, model in each.models.items() if model.parameters is None]
QUICK = ("cnn", "resnet_tiny", "vit_tiny")  # convolutions and BatchNorm, dots and attention

TYPES = r"tensor<(?:\d+x)*(\w+)>"
PRODUCTS = re.compile(rf"stablehlo\.(convolution|dot_general).*: \({TYPES}, {TYPES}\) -> {TYPES}")


@dataclasses.dataclass(frozen=True)
class Lowered:
    text: str
    state: TrainState

    def operands(self, operation: str) -> set[str]:
        return {dtype for found, *dtypes in PRODUCTS.findall(self.text) if found == operation for dtype in dtypes[:2]}


def lowered(name: str, precision: str, platform: str) -> Lowered:
    """The step of a model for 8 devices of a kind; nothing of it is computed."""
    config = default_config()
    config.model.name, config.model.precision, config.data.image_size = name, precision, (96, 96)
    config.optimizer.name, config.optimizer.args = "sgd", "momentum=0.9"
    config = resolve.resolve(config, CLASSES)
    mesh = sharding.create_mesh()
    with forms.on_devices_of(mesh):
        model = nnx.eval_shape(lambda: models.create(config, CLASSES))
    freezing = freeze.create_freezing(config, model, total_steps=10, steps_per_epoch=10)
    (phase,) = phases.create(config, model, freezing, optax.constant_schedule(0.1), 10, None, mesh)
    state = jax.eval_shape(phase.first_state, *split_model(model)[1:])
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, *config.data.image_size, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((BATCH,), np.int32),
    }
    assert isinstance(phase.scalars.learning_rate, np.ndarray)  # nothing is on a device, as there may be none
    traced = phase.compiled.trace(state, batch_augment.inputs(batch), phase.scalars)
    return Lowered(traced.lower(lowering_platforms=(platform,)).as_text(), state)


@pytest.fixture(autouse=True)
def of_described_devices(monkeypatch):
    """Meshes say that they are of 8 TPU chips; what differs for a GPU, attention, is in tests/models/test_forms.py."""
    monkeypatch.setattr(forms, "target_of", lambda mesh: forms.Target("tpu", BATCH))


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TINY])
def test_a_step_in_bfloat16_is_so_whole_and_takes_over_its_state(name):
    step = lowered(name, "bf16", "tpu")
    assert step.operands("convolution") == {"bf16"}
    assert "f32" in step.operands("dot_general")  # the logits and their gradients
    assert len(re.findall("tf.aliasing_output|jax.buffer_donor", step.text)) == len(jax.tree.leaves(step.state))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", TINY)
def test_a_step_in_float32_has_no_narrower_product(name, platform):
    step = lowered(name, "f32", platform)
    assert step.operands("convolution") | step.operands("dot_general") == {"f32"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_step_in_bfloat16_lowers_for_a_gpu(name):
    assert lowered(name, "bf16", "cuda").operands("convolution") == {"bf16"}
