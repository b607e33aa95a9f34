"""The registry: what each family exports, and the numbers of parameters that it states."""

import math

import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import created

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import choice, conversion
from imgclf.models.weights.conversion import Weights

PREPROCESSING = ("timm/resnet50.tv_in1k", "timm/resnet50.a1_in1k", "timm/inception_v3.tv_in1k", "keras/mobilenet_v2_1.0_224")


def count(name: str) -> int:
    """Parameters of a model with its published head, else with a linear one for 1,000 classes."""
    entry = next(iter(registry.weights(name).values()), None)
    config = default_config()
    config.model.name = name
    config.model.head.kind = "auto" if name == "cnn" else "family"
    if entry is not None:
        config.data.image_size = entry.input_size
        config.model.variant = ", ".join(f"{key}={value!r}" for key, value in entry.variant.items())
    classes = (entry.num_classes if entry else 0) or 1000
    model = nnx.eval_shape(lambda: created(config, classes))
    return sum(math.prod(leaf.shape) for leaf in conversion.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).values())


def _names():
    """Building the larger ones only to count them takes half a minute: they are slow."""
    counts = registry.parameters()
    quick = {min(set(family.models) & set(counts), key=counts.__getitem__) for family in registry.families()}
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in counts]


@pytest.mark.parametrize("name", _names())
def test_the_stated_number_of_parameters_is_right(name):
    assert count(name) == registry.parameters()[name]


@pytest.mark.parametrize("place", range(len(registry.FAMILIES)), ids=registry.FAMILIES)
def test_a_family_is_complete(place):
    family = registry.families()[place]
    listed = [name for name, model in family.models.items() if model.parameters is not None]
    assert listed
    assert {entry.model for entry in family.weights} <= set(listed)
    assert {entry.layout for entry in family.weights} <= set(family.conversion)


def test_weights_ask_for_options_that_their_familys_builders_have():
    for family in registry.families():
        small = next((model.build for model in family.models.values() if model.parameters is None), None)
        for options in {tuple(entry.variant.items()) for entry in family.weights if entry.variant}:
            assert small is not None
            nnx.eval_shape(lambda build=small, options=options: build(**dict(options), rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("family", registry.families(), ids=registry.FAMILIES)
def test_weights_state_what_is_possible(family):
    for entry in family.weights:
        assert 0 < entry.crop_fraction <= 1, entry.name
        assert entry.interpolation in ("bilinear", "bicubic"), entry.name
        assert all(0 <= mean < 1 for mean in entry.mean), entry.name
        assert all(0 < std <= 1 for std in entry.std), entry.name
        assert min(entry.input_size) >= 28, entry.name
        assert entry.licence or not entry.repo, entry.name
        assert entry.licence or entry.commercial, entry.name
        for percent in (entry.top1, entry.linear_probe):
            assert percent is None or 20 < percent < 100, entry.name
        assert entry.gmacs is None or 0.01 < entry.gmacs < 500, entry.name


def test_weights_say_how_their_images_are_made():
    known = registry.weights()
    assert [(entry.input_size[0], entry.crop_fraction, entry.interpolation) for entry in map(known.__getitem__, PREPROCESSING)] == [
        (224, 0.875, "bilinear"),
        (224, 0.95, "bicubic"),
        (299, 0.875, "bicubic"),
        (224, 0.875, "bilinear"),
    ]


def weights_of(model: str, *figures: tuple[float | None, float | None, bool]) -> list[Weights]:
    return [
        Weights(f"{model}/{i}", model, "timm", linear_probe=probe, top1=top1, soft_labels=soft)
        for i, (probe, top1, soft) in enumerate(figures)
    ]


PERCENT = st.none() | st.floats(30, 90)
FIGURES = st.lists(st.tuples(PERCENT, PERCENT, st.booleans()), max_size=4)


@settings(max_examples=50, deadline=None)
@given(FIGURES, FIGURES)
def test_the_best_for_a_probe_are_those_with_the_best_published_probe_then_by_top1(first, second):
    found = {entry.name: entry for entry in (*weights_of("a", *first), *weights_of("b", *second))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "weights", lambda model=None: found)
        ordered = registry.best_for_probe()
    assert sorted(entry.name for entry in ordered) == sorted(found)
    probes = [entry.linear_probe for entry in ordered if entry.linear_probe is not None]
    assert [entry.linear_probe for entry in ordered[: len(probes)]] == sorted(probes, reverse=True)
    rest = ordered[len(probes) :]
    plain = [entry.top1 or 0 for entry in rest if not entry.soft_labels]
    assert plain == sorted(plain, reverse=True)
    for i, entry in enumerate(rest):  # mixed labels raise top-1 only: they never win against the same network without
        known = [other.top1 for other in found.values() if other.model == entry.model and not other.soft_labels and other.top1]
        later = [other.top1 for other in rest[i:] if other.model == entry.model and not other.soft_labels]
        assert not entry.soft_labels or not known or max(known) not in later or (entry.top1 or 0) < max(known)


def test_the_best_for_a_probe_within_limits():
    of_cifar = [i for i, entry in enumerate(registry.best_for_probe()) if entry.num_classes == 10]
    of_imagenet = [i for i, entry in enumerate(registry.best_for_probe()) if entry.num_classes == 1000 and entry.top1]
    assert min(of_cifar) > max(of_imagenet)  # their 92 % are of ten classes
    found = registry.best_for_probe(max_gmacs=1.0, commercial=True)
    assert found
    assert all(entry.gmacs <= 1.0 and entry.commercial for entry in found)
    assert {entry.model for entry in registry.best_for_probe("resnet50")} == {"resnet50"}


def test_the_default_of_create_is_the_small_dinov2():
    best = registry.best_for_probe(max_gmacs=choice.MAX_GMACS, commercial=True)[0]
    assert (best.name, best.licence, best.linear_probe) == ("timm/vit_small_patch14_reg4_dinov2.lvd142m", "apache-2.0", 80.9)


def test_unknown_names_get_near_ones():
    with pytest.raises(UserError, match=r"resnet51.*resnet5"):
        registry.family("resnet51")
