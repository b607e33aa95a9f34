"""ConvNeXt: sizes, and that it learns. Equality with the originals: test_golden.py, test_keras_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly, normal
from flax import nnx
from networks import created
from safetensors.numpy import save_file

from imgclf.config import default_config
from imgclf.models import convnext, convnext_v2
from imgclf.models.network import Network


def build(builder, **options):
    rngs = nnx.Rngs(0)
    backbone = builder(**options, rngs=rngs)
    return Network(backbone, convnext.HEAD((7, 7), backbone.features, 1000, rngs=rngs))


def test_any_size_has_the_maps_it_says():
    abstract = nnx.eval_shape(lambda: convnext.convnext_tiny(rngs=nnx.Rngs(0)))
    maps = nnx.eval_shape(lambda model, x: model(x), abstract, jax.ShapeDtypeStruct((2, 95, 161, 3), jnp.float32))
    assert maps.shape == (2, *abstract.map_size(95, 161), abstract.features)


def test_gradients_reach_every_parameter():
    model = nnx.eval_shape(lambda: build(convnext.convnext_micro, response_norm=convnext_v2.GlobalResponseNorm))
    graphdef, params = nnx.split(model)
    numbers = np.random.default_rng(0)
    params = normal(params, numbers)
    image = numbers.normal(size=(2, 16, 24, 3)).astype(np.float32)

    def loss(params):
        return nnx.merge(graphdef, nnx.State(params))(image, train=True)[:, 0].sum() ** 2

    grads = compile_quickly(jax.grad(loss), params)(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_in_bfloat16_parameters_stay_float32():
    model = nnx.eval_shape(lambda: build(convnext.convnext_micro, dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    maps = nnx.eval_shape(lambda model, x: model.backbone(x), model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert maps.dtype == jnp.bfloat16


def test_global_response_norm_is_the_papers_algorithm():
    numbers = np.random.default_rng(0)
    maps = numbers.normal(size=(2, 3, 4, 5)).astype(np.float32)
    layer = convnext_v2.GlobalResponseNorm(5)
    np.testing.assert_array_equal(layer(maps), maps)
    gamma, beta = (numbers.normal(size=5).astype(np.float32) for _ in range(2))
    layer.scale[...], layer.bias[...] = jnp.asarray(gamma), jnp.asarray(beta)
    for image, normalized in zip(maps, layer(maps), strict=True):
        norms = np.linalg.norm(image.reshape(-1, 5), axis=0)
        np.testing.assert_allclose(normalized, gamma * (image * norms / (norms.mean() + 1e-6)) + beta + image, rtol=1e-5, atol=1e-5)


def test_dinov3s_files_have_no_classifier_and_a_licence_of_their_own():
    entries = [entry for entry in convnext.WEIGHTS if "dinov3" in entry.name]
    assert [entry.model for entry in entries] == ["convnext_tiny", "convnext_small", "convnext_base"]
    assert {(entry.num_classes, entry.licence, entry.commercial) for entry in entries} == {(0, "dinov3-license", True)}


def timm_tensors(classes: int) -> dict[str, np.ndarray]:
    """A file of convnext_micro's in timm's names."""
    shapes = {"stem.0.weight": (16, 3, 4, 4), "stem.0.bias": (16,), "stem.1.weight": (16,), "stem.1.bias": (16,)}
    for stage, width in ((0, 16), (1, 32)):
        block = f"stages.{stage}.blocks.0."
        shapes |= {block + "conv_dw.weight": (width, 1, 7, 7), block + "gamma": (width,)}
        shapes |= {block + "mlp.fc1.weight": (4 * width, width), block + "mlp.fc1.bias": (4 * width,)}
        shapes |= {block + "mlp.fc2.weight": (width, 4 * width)}
        shapes |= {block + name: (width,) for name in ("conv_dw.bias", "norm.weight", "norm.bias", "mlp.fc2.bias")}
    shapes |= {f"stages.1.downsample.0.{name}": (16,) for name in ("weight", "bias")}
    shapes |= {"stages.1.downsample.1.weight": (32, 16, 2, 2), "stages.1.downsample.1.bias": (32,)}
    shapes |= {"head.norm.weight": (32,), "head.norm.bias": (32,), "head.fc.weight": (classes, 32), "head.fc.bias": (classes,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("file_classes", "kind", "told"), [
    (5, "auto", []),
    (7, "auto", ["the head's last layer is new (norm, 5 classes; that of 7 classes is left out)"]),
    (0, "auto", ["the head's last layer is new (norm, 5 classes; the file has none)"]),
    (5, "linear", ["the head is new (linear, 5 classes; that of 5 classes is left out)"]),
])  # fmt: skip
def test_a_head_for_other_classes_keeps_its_norm(tmp_path, file_classes, kind, told):
    tensors = {name: value for name, value in timm_tensors(file_classes).items() if value.size}
    path = tmp_path / "micro.safetensors"
    save_file(tensors, path)
    config = default_config()
    config.model.name, config.model.weights, config.model.head.kind = "convnext_micro", f"path:{path}", kind
    config.data.image_size = (64, 64)
    said: list[str] = []
    head = created(config, 5, tell=said.append).head
    assert said == [f"path:{path}: {line}." for line in told]
    assert head.logits.kernel.shape == (32, 5)
    if kind == "auto":
        np.testing.assert_array_equal(head.norm.scale[...], tensors["head.norm.weight"])
    if file_classes == 5 and kind == "auto":
        np.testing.assert_array_equal(head.logits.kernel[...], tensors["head.fc.weight"].T)
