"""HiResCAM: completeness, its definition, every family, and that it depends on the weights (Adebayo et al., 2018)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explained_network import explained
from networks import created
from scipy.stats import spearmanr

from imgclf.config import default_config
from imgclf.data import augment
from imgclf.data.images import Decoding, decode
from imgclf.errors import UserError
from imgclf.explanation import cam
from imgclf.explanation.explained import Explained, scores
from imgclf.models import registry
from imgclf.training.state import split_model
from imgclf.training.step import normalize

LABELS = np.array([0, 1, 2, 1, 0])


def logits_of(model, images):
    return np.asarray(model.network(normalize(images, *model.normalization)))


@pytest.mark.parametrize("flatten", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_map_adds_up_to_the_logit_without_its_bias_where_the_head_is_linear(images, flatten):
    model = explained(**{"model.cnn.flatten": flatten})
    assert model.adds_up
    found = cam.maps(model, images, LABELS)
    assert found.dtype == np.float32
    assert found.shape == (5, *model.place_count)
    bias = np.asarray(model.params["head"]["logits"]["bias"])
    expected = logits_of(model, images)[np.arange(5), LABELS]
    np.testing.assert_allclose(found.sum((1, 2)) + bias[LABELS], expected, atol=1e-4)


@pytest.mark.slow
def test_of_two_classes_with_one_output_the_second_is_explained_and_the_first_is_its_opposite(images):
    model = explained(classes=2, **{"model.output": "sigmoid"})
    both = cam.maps(model, images, np.tile([0, 1], (5, 1)))
    np.testing.assert_allclose(both[:, 0], -both[:, 1], atol=1e-6)
    bias = float(model.params["head"]["logits"]["bias"][0])
    np.testing.assert_allclose(both[:, 1].sum((1, 2)) + bias, logits_of(model, images)[:, 1], atol=1e-4)
    assert np.asarray(scores(jnp.array([[0.0, 3.0], [0.0, 3.0]]), jnp.array([0, 1]), single=True)).tolist() == [-3.0, 3.0]


@pytest.mark.slow
def test_of_a_linear_head_on_averaged_maps_it_is_cam(images):
    """Zhou et al., 2016: the maps weighted by the class's weights."""
    model = explained()
    maps = np.asarray(model.network.backbone(normalize(images, *model.normalization), train=False))
    weights = np.asarray(model.params["head"]["logits"]["kernel"])[:, LABELS]
    expected = np.einsum("bhwd,db->bhw", maps, weights) / np.prod(maps.shape[1:3])
    np.testing.assert_allclose(cam.maps(model, images, LABELS), expected, atol=1e-5)


def test_of_an_image_s_classes_each_is_explained_as_if_alone_and_the_batch_does_not_matter(images):
    model = explained(**{"model.cnn.dense": (6,)})
    assert not model.adds_up
    several = cam.maps(model, images, np.stack([LABELS, LABELS[::-1]], 1))
    assert several.shape[:2] == (5, 2)
    np.testing.assert_allclose(several[:, 0], cam.maps(model, images, LABELS), atol=1e-6)
    told = []
    one = dataclasses.replace(model)
    np.testing.assert_allclose(cam.maps(one, images[:1], LABELS[:1], on_batch=told.append), several[:1, 0], atol=1e-6)
    assert told == [1]
    assert cam.maps(model, images[:0], LABELS[:0]).shape == (0, *model.place_count)


def test_maps_of_one_place_are_refused():
    with pytest.raises(UserError, match=r"single place at 4 x 4 pixels.*method='occlusion'"):
        cam.need_places(explained(size=4))


FAMILIES = [next((name for name in family.models if "tiny" in name), next(iter(family.models))) for family in registry.families()]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*FAMILIES, "vit_tiny_dinov2", "vit_tiny_dinov3", "vit_tiny_siglip"} - {"vit_tiny"}))
def test_every_family_is_explained_with_the_head_that_it_was_published_with(name):
    model = explained(name, size=96, classes=4, **{"model.head.kind": "family"})
    shown = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    places, logits = model.network.places(normalize(shown, *model.normalization))
    np.testing.assert_allclose(np.asarray(logits(places)), logits_of(model, shown), atol=1e-4)
    found = cam.maps(model, shown, np.array([0, 3]))
    assert found.shape == (2, *model.place_count)
    assert min(found.shape[1:]) > 1
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny", "vit_tiny_dinov2", "vit_tiny_dinov3", "vit_tiny_siglip"])
def test_the_places_of_a_vision_transformer_are_its_patches_and_make_the_same_logits(name):
    model = explained(name, size=32)
    shown = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3)).astype(np.uint8)
    places, logits = model.network.places(normalize(shown, *model.normalization))
    assert places.shape == (2, 4, 2, 32)  # patches of 8 pixels, without the class token and the registers
    expected = logits_of(model, shown)
    np.testing.assert_allclose(np.asarray(logits(places)), expected, atol=1e-5)
    changed = np.abs(np.asarray(logits(places.at[0, 3, 1].add(1.0))) - expected).max(1)
    assert changed[0] > 0
    assert changed[1] == 0


@pytest.mark.slow
def test_of_a_class_token_the_tokens_before_the_last_norm_would_explain_nothing():
    """Why `VisionTransformer.places` takes those after it: LayerNorm takes no notice of a factor."""
    model = explained("vit_tiny", size=32)
    backbone, head = model.network.backbone, model.network.head
    shown = normalize(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8), *model.normalization)
    x = getattr(backbone.blocks, "0")(backbone.embedding(shown))
    last = getattr(backbone.blocks, "1")
    gradient = jax.grad(lambda x: head(backbone.norm(last(x, None, 1))[:, None])[0, 0])(x)
    raw = np.abs((gradient * x).sum(-1)[0, 1:]).max()
    assert raw < 0.02 * np.abs(cam.maps(model, np.asarray(shown_pixels(shown, model)), np.array([0]))).max()


def shown_pixels(image, model):
    mean, std = model.normalization
    return np.round(255 * (np.asarray(image) * std + mean)).astype(np.uint8)


def randomised(model: Explained, *names: str) -> Explained:
    """The model with the parameters whose paths begin with one of these drawn anew, of the same mean and standard deviation."""
    rng = np.random.default_rng(7)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        values = np.asarray(leaf)
        return rng.permutation(values.reshape(-1)).reshape(values.shape) if name.startswith(names) else values

    return dataclasses.replace(model, params=jax.tree_util.tree_map_with_path(draw, model.params))


@pytest.mark.slow
def test_maps_depend_on_the_weights(shared):
    """J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (https://arxiv.org/abs/1810.03292): of real photos and weights."""
    config = default_config()
    config.model.name, config.model.weights = "mobilenet_v2", f"path:{shared / 'weights' / 'mobilenet_v2_1.0_224.keras.h5'}"
    config.data.image_size, config.model.head.kind = (224, 224), "linear"
    network = created(config, 1000)
    graphdef, params, batch_stats = split_model(network)
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    model = Explained(config, graphdef, params, batch_stats)
    preprocessing = augment.Preprocessing.of(config)
    photos = sorted((shared / "data" / "imagenet_sample").glob("*.JPEG"))[::20]
    shown = np.stack([preprocessing.plain(decode(photo.read_bytes(), decoding=Decoding())) for photo in photos])
    labels = model.features_and_logits(shown)[1].argmax(1)
    plain = cam.maps(model, shown, labels)
    np.testing.assert_array_equal(cam.maps(dataclasses.replace(model), shown, labels), plain)
    correlation = {}
    for names in (("head/",), ("head/", "backbone/last/"), ("head/", "backbone/")):
        other = cam.maps(randomised(model, *names), shown, labels)
        correlation[names] = float(np.mean([abs(spearmanr(a.ravel(), b.ravel())[0]) for a, b in zip(plain, other, strict=True)]))
    print(correlation)
    assert max(correlation.values()) < 0.5
