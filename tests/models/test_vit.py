"""Vision Transformers: their parts, sizes, and files without a classifier. Equality with the originals: test_golden.py."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import compile_quickly, normal
from flax import nnx
from networks import created
from random_weights import torch_weights
from safetensors.numpy import save_file

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.models import registry, transformer
from imgclf.models.heads import DenseHead
from imgclf.models.network import Network
from imgclf.models.weights import conversion, pretrained
from imgclf.training.parameter_tables import match_table

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TINY = ("vit_tiny_siglip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit_tiny", "vit_tiny_dinov2", "vit_tiny_dinov3")))


def build(name, **options):
    rngs = nnx.Rngs(0)
    backbone = registry.builder(name)(**options, rngs=rngs)
    return Network(backbone, DenseHead((1, 1), backbone.features, 5, rngs=rngs))


def abstract(name, **options):
    return nnx.eval_shape(lambda: build(name, **options)).backbone


def shapes(backbone, size, method="__call__"):
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return nnx.eval_shape(lambda backbone, image: getattr(backbone, method)(image), backbone, image)


@pytest.mark.parametrize("name", [name for name, model in registry.family("vit_tiny").models.items() if model.parameters])
def test_the_maps_have_the_size_that_they_say(name):
    backbone = abstract(name, depth=1)
    patch = backbone.architecture.patch
    height, width = 7 * patch, 5 * patch
    assert shapes(backbone, (height, width)).shape == (2, *backbone.map_size(height, width), backbone.features)
    assert shapes(backbone, (height, width), "patch_maps").shape == (2, 7, 5, backbone.features)
    assert backbone.map_size(height, width) == ((7, 5) if "dinov3" in name else (1, 1))


def test_sides_that_patches_do_not_cover_are_refused():
    backbone = abstract("vit_small_patch14_reg4_dinov2", depth=1)
    with pytest.raises(UserError, match=r"image_size=\(256, 224\).*patches of 14 x 14.*image_size=\(252, 224\)\."):
        backbone.map_size(256, 224)
    with pytest.raises(UserError, match=r"image_size=\(14, 14\)\."):
        backbone.map_size(5, 3)


def test_any_part_can_be_varied_and_pooling_that_is_not_there_is_refused():
    assert abstract("vit_tiny", pool="average", patch=4).map_size(16, 8) == (4, 2)
    with pytest.raises(UserError, match=r"pool='token'.*'attention' or 'average'"):
        abstract("vit_tiny_siglip", pool="token")
    with pytest.raises(UserError, match=r"pool='mean'.*'token' or 'average'"):
        abstract("vit_tiny", pool="mean")
    config = default_config()
    config.model.name, config.model.variant = "vit_tiny", "deep=3"
    with pytest.raises(UserError, match=r"model\.variant='deep=3' does not suit 'vit_tiny'"):
        created(config, 3)


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_parameter(name):
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(name, depth=1)))
    numbers = np.random.default_rng(0)
    params = normal(params, numbers)
    image = numbers.normal(size=(2, 16, 24, 3)).astype(np.float32)

    def loss(params):
        return nnx.merge(graphdef, nnx.State(params))(image, train=True)[:, 0].sum() ** 2

    grads = compile_quickly(jax.grad(loss), params)(params)
    assert not [path for path, leaf in conversion.flatten(grads).items() if not np.abs(leaf).max() > 0]


def test_pooling_takes_its_tokens_from_the_same_place():
    """The maps of pool="average" are those that a network with a class token has, too."""
    graphdefs = [nnx.graphdef(abstract("vit_tiny_dinov2", depth=1, pool=pool)) for pool in ("token", "average")]
    numbers = np.random.default_rng(0)
    params = nnx.to_pure_dict(nnx.state(abstract("vit_tiny_dinov2", depth=1)))
    params = normal(params, numbers)
    image = numbers.normal(size=(2, 32, 16, 3)).astype(np.float32)

    def all_of(params, image):
        token, average = (nnx.merge(graphdef, nnx.State(params)) for graphdef in graphdefs)
        return token(image), token.norm(token.blocks(token.embedding(image))), token.patch_maps(image), average(image)

    pooled, tokens, maps, averaged = compile_quickly(all_of, params, image)(params, image)
    assert tokens.shape == (2, 1 + 4 + 4 * 2, 32)
    np.testing.assert_allclose(pooled[:, 0, 0], tokens[:, 0], atol=1e-5)
    np.testing.assert_array_equal(averaged, maps)
    np.testing.assert_allclose(maps.reshape(2, 8, 32), tokens[:, 5:], atol=1e-5)


def test_in_bfloat16_parameters_stay_float32_and_attention_is_near_exact():
    model = nnx.eval_shape(lambda: build("vit_tiny_dinov3", dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    assert shapes(model.backbone, (16, 16)).dtype == jnp.bfloat16
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 9, 2, 8)).astype(jnp.bfloat16)
    np.testing.assert_allclose(transformer.attend(q, k, v).astype(jnp.float32), plain_attention(q, k, v), atol=0.02)


def plain_attention(query, key, value):
    """In float64, head by head."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    weights = np.exp(np.einsum("bmhd,bnhd->bhmn", query, key) / np.sqrt(query.shape[-1]))
    return np.einsum("bhmn,bnhd->bmhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (1, 9), (7, 1)])
def test_attention_is_the_softmax_of_scaled_products(queries, keys):
    numbers = np.random.default_rng(queries)
    query = numbers.normal(size=(2, queries, 3, 8)).astype(np.float32)
    key, value = numbers.normal(size=(2, 2, keys, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(transformer.attend(query, key, value), plain_attention(query, key, value), atol=1e-5)


@pytest.mark.parametrize(("height", "width", "others"), [(3, 4, 5), (2, 1, 0)])
def test_rotary_positions_keep_lengths_and_tell_distances(height, width, others):
    numbers = np.random.default_rng(0)
    rotation = transformer.axial_rotation(height, width, 16, others)
    query, key = (np.broadcast_to(numbers.normal(size=16), (1, others + height * width, 1, 16)) for _ in range(2))
    turned = np.asarray(jax.jit(rotation.__call__)(np.concatenate([query, key]).astype(np.float32)))[:, :, 0]
    for before, after in zip((query, key), turned, strict=True):
        np.testing.assert_allclose(after[:others], before[0, :others, 0], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(after, axis=-1), np.linalg.norm(before[0, :, 0], axis=-1), rtol=1e-5)
    products = (turned[0][others:] @ turned[1][others:].T).reshape(height, width, height, width)
    np.testing.assert_allclose(products[1:, 1:, 1:, 1:], products[:-1, :-1, :-1, :-1], atol=1e-4)


def test_positions_and_lone_tokens_do_not_decay():
    params = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build("vit_tiny_dinov2"))))
    decays = conversion.flatten(match_table(default_config().optimizer.weight_decay_table, params, "the table"))
    assert {path.rsplit("/", 1)[-1] for path, decay in decays.items() if decay} == {"kernel"}
    assert {path.rsplit("/", 1)[-1] for path, decay in decays.items() if not decay} == {
        *("scale", "bias", "position", "class_token", "registers")
    }


def timm_file(path: Path, golden: str, name: str) -> dict[str, np.ndarray]:
    """Writes a tiny network's file in timm's names, without a classifier."""
    rules = registry.family(name).conversion["timm"]
    wanted = {path: leaf.shape for path, leaf in conversion.flatten({"backbone": nnx.to_pure_dict(nnx.state(abstract(name)))}).items()}
    found = {}
    for tensor, full in json.loads((GOLDEN / f"{golden}.json").read_text())["tensors"].items():
        target, transform = conversion.match(tensor, rules)
        if target in wanted:
            order = transform(np.zeros(range(2, 2 + len(full)))).shape if len(full) != 3 else None
            ours = wanted[target]
            found[tensor] = (1, *ours) if order is None else tuple(ours[order.index(axis)] for axis in range(2, 2 + len(full)))
    tensors = torch_weights(found, name)
    save_file(tensors, path)
    return tensors


def test_a_file_without_a_classifier_is_a_backbone_for_a_new_head(tmp_path):
    name, path = "vit_tiny_dinov2", tmp_path / "features.safetensors"
    tensors = timm_file(path, "timm_vit_small_patch14_reg4_dinov2.lvd142m", name)
    assert not [tensor for tensor in tensors if tensor.startswith("head")]
    config = default_config()
    config.model.name, config.model.weights, config.data.image_size = name, f"path:{path}", (40, 24)
    said: list[str] = []
    model = created(config, 5, tell=said.append)
    assert said == [f"path:{path}: the head is new (linear, 5 classes; the file has none)."]
    np.testing.assert_array_equal(model.backbone.embedding.position[...], tensors["pos_embed"][0])
    np.testing.assert_array_equal(getattr(model.backbone.blocks, "1").attention.qkv.kernel[...], tensors["blocks.1.attn.qkv.weight"].T)


def test_published_weights_without_a_classifier_ask_for_a_new_head():
    config = default_config()
    config.model.name, config.model.weights = "vit_small_patch14_reg4_dinov2", "timm/vit_small_patch14_reg4_dinov2.lvd142m"
    entry = pretrained.find(config.model.weights, config.model.name)
    assert (entry.num_classes, entry.top1, entry.linear_probe) == (0, None, 80.9)
    for classes in (1, 2, 1000):
        assert pretrained.resolve(config, classes).model.head.kind == "linear"
    listed = {weights["name"]: weights for model in registry.entries() for weights in model["weights"]}
    assert listed[entry.name]["num_classes"] == 0
