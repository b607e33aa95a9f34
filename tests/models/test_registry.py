"""The registry: what each family exports, and the numbers of parameters that it states."""

import math

import pytest
from flax import nnx
from networks import created

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import conversion


def count(name: str) -> int:
    """Parameters of a model with its published head, else with a linear one for 1,000 classes."""
    entry = next(iter(registry.weights(name).values()), None)
    config = default_config()
    config.model.name = name
    config.model.head.kind = "auto" if name == "cnn" else "family"
    if entry is not None:
        config.data.image_size = entry.input_size
        config.model.variant = ", ".join(f"{key}={value!r}" for key, value in entry.variant.items())
    model = nnx.eval_shape(lambda: created(config, entry.num_classes if entry else 1000))
    return sum(math.prod(leaf.shape) for leaf in conversion.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param))).values())


@pytest.mark.parametrize("name", registry.parameters())
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


def test_unknown_names_get_near_ones():
    with pytest.raises(UserError, match=r"resnet51.*resnet5"):
        registry.family("resnet51")
