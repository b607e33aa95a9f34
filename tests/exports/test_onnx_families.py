"""Every family of networks says in onnxruntime what it says in JAX."""

import jax
import numpy as np
import onnxruntime
import pytest
from flax import nnx

from imgclf.config import default_config
from imgclf.exports import onnx as to_onnx
from imgclf.exports.exportable import Exportable
from imgclf.exports.program import program
from imgclf.models import registry
from imgclf.models.weights import pretrained
from imgclf.training.state import split_model

_SIZES = {"inception_v3_tiny": 75, "xception_tiny": 71, "vit_tiny_dinov2": 56}
_FAST = ("mobilenet_v3_tiny", "vit_tiny_dinov3")
_SMALL = [name for name in registry.NAMES if name.endswith(("_tiny", "_micro")) and name not in ("convnext_tiny", "convnextv2_tiny")]
_SMALL += ["vit_tiny_dinov2", "vit_tiny_dinov3", "vit_tiny_siglip", "resnet20"]


def exportable(name: str, **fields: object) -> Exportable:
    """A classifier with random parameters and statistics."""
    from imgclf import models

    size = _SIZES.get(name, 32)
    config = default_config()
    config.model.name, config.data.image_size = name, (size, size)
    config.data.mean, config.data.std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    for field, value in fields.items():
        config.model.head[field] = value
    config = pretrained.resolve(config, 5)
    _, params, batch_stats = split_model(nnx.eval_shape(lambda: models.create(config, 5)))
    rng = np.random.default_rng(len(name))

    def drawn(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if jax.tree_util.keystr(path).endswith(("'var']", "'scale']")):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 25
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    params, batch_stats = (jax.tree_util.tree_map_with_path(drawn, tree) for tree in (params, batch_stats))
    return Exportable(
        name="random",
        config=config,
        class_names=tuple("abcde"),
        params=params,
        batch_stats=batch_stats,
        temperature=1.7,
        logit_offset=(0.1, 0.0, -0.2, 0.3, 0.0),
        conformal=None,
        open_set=None,
        licence=None,
        pictures=None,  # type: ignore[arg-type]  # no gate here
        run=None,  # type: ignore[arg-type]
        sha256="",
    )


def worst_difference(made: Exportable) -> float:
    """The greatest difference of an output between onnxruntime and JAX, for 1 and 3 images, as a share of the outputs' spread."""
    model = to_onnx.model_of(made)
    known = sum(leaf.nbytes for leaf in jax.tree.leaves((made.params, made.batch_stats)))
    assert sum(len(array.raw_data) for array in model.graph.initializer) < 1.3 * known + 2000, "parameters stand in the graph once"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", "probabilities", "features"]
    image = np.random.default_rng(0).integers(0, 256, (3, *made.size, 3), np.uint8)
    expected = jax.jit(program(made))(image)
    worst = 0.0
    for count in (1, 3):
        for name, found in zip(names, session.run(names, {"image": image[:count]}), strict=True):
            wanted = np.asarray(expected[name])
            assert found.shape == wanted[:count].shape
            worst = max(worst, float(np.abs(found - wanted[:count]).max() / (wanted.max() - wanted.min())))
    return worst


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in _FAST else pytest.mark.slow) for name in ["cnn", *_SMALL]])
def test_a_family_in_onnx(name):
    assert worst_difference(exportable(name)) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"kind": "mlp", "dense": (8,), "norm": "batch"}, {"kind": "avgmax"}, {"kind": "linear", "normalize": True}]
)
def test_a_head_in_onnx(fields):
    assert worst_difference(exportable("squeezenet_tiny", **fields)) < 2e-5


def test_all_families_are_tried():
    assert {id(registry.family(name)) for name in ["cnn", *_SMALL]} == {id(family) for family in registry.families()}
