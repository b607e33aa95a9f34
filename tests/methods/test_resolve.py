"""A config is checked and settled once: what is returned leaves nothing to choose, and is what a run saves."""

import pytest

from imgclf import models
from imgclf.config import default_config, flatten, from_json, to_json
from imgclf.errors import UserError
from imgclf.methods import choice, resolve
from imgclf.models.weights import conversion, pretrained


def config_of(**fields):
    config = default_config()
    config.data.source = "digits"
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize("name", ["cnn", "mobilenet_v2_tiny"])
@pytest.mark.parametrize("method", ["auto", "fit", "probe", "lp_ft"])
def test_nothing_is_left_to_choose_and_nothing_is_chosen_again(name, method):
    asked = config_of(**{"model.name": name, "train.method": method})
    before = to_json(asked)
    resolved = resolve.resolve(resolve.check(asked), 10)
    assert to_json(asked) == before  # a copy is settled
    assert resolved.train.method in choice.METHODS
    assert resolved.model.variant != "auto"
    assert len(resolved.data.mean) == len(resolved.data.std) == 3
    assert (resolved.model.head.kind == "auto") == (name == "cnn" and method in ("auto", "fit"))  # cnn's own head has fields of its own
    saved = from_json(to_json(resolved))
    assert flatten(resolve.resolve(resolve.check(saved), 10)) == flatten(resolved)


def test_weights_and_a_new_head_of_one_layer_mean_lp_ft(tiny_weights):
    weights = {"model.name": "mobilenet_v2_tiny", "model.weights": tiny_weights("mobilenet_v2_tiny")}
    for kind, method in (("linear", "lp_ft"), ("mlp", "fit")):
        assert resolve.resolve(resolve.check(config_of(**weights, **{"model.head.kind": kind})), 3).train.method == method


def test_the_weights_say_how_images_are_shown(monkeypatch):
    """A run states the crop and interpolation that it took from its weights; and keeps them when it is settled again."""
    published = conversion.Weights("mine", "mobilenet_v2_tiny", "timm", crop_fraction=0.95, interpolation="bicubic")
    monkeypatch.setattr(pretrained, "find", lambda name, model: published)
    asked = {"model.name": "mobilenet_v2_tiny", "data.resize": "weights", "data.image_size": (48, 32)}
    shown = {}
    for weights in ("mine", "none"):
        resolved = resolve.resolve(resolve.check(config_of(**asked, **{"model.weights": weights})), 10)
        assert flatten(resolve.resolve(resolve.check(from_json(to_json(resolved))), 10)) == flatten(resolved)
        shown[weights] = (resolved.data.resize, resolved.data.crop_fraction, resolved.data.interpolation, resolved.data.image_size)
    assert shown == {"mine": ("crop", 0.95, "bicubic", (48, 32)), "none": ("crop", 0.875, "bilinear", (48, 32))}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augment.policy": "rand_augmen"}, "augment.policy"),
        ({"augment.policy": "rand_augment", "augment.policy_args": "magnitud=3"}, "did you mean 'magnitude'"),
        ({"optimizer.name": "adamm"}, "did you mean 'adam"),
        ({"data.resize": "weights", "data.crop_fraction": 0.9}, "takes crop_fraction and interpolation from the weights"),
        ({"data.resize": "weights", "augment.mode": "keras_legacy"}, "resizes as Keras did"),
        ({"data.interpolation": "bicubic", "augment.mode": "keras_legacy"}, "resizes as Keras did"),
        ({"model.name": "resnet51"}, "is not a model"),
        ({"eval.views": "crops", "augment.mode": "keras_legacy"}, "which has no crops"),
        ({"eval.views": "framings", "augment.mode": "keras_legacy"}, "which has no crops"),
        ({"model.head.normalize": True}, "head.kind='auto' of 'cnn'"),
        ({"model.head.normalize": True, "model.head.kind": "norm"}, "does not go with config.model.head.kind='norm'"),
        ({"train.method": "probe", "model.head.kind": "mlp"}, "probe.solver='minibatch'"),
    ],
)
def test_what_needs_no_data_is_checked_before_any_is_read(fields, message):
    with pytest.raises(UserError, match=message):
        resolve.check(config_of(**fields))


def test_a_model_is_made_of_a_resolved_config_only():
    config = config_of(**{"model.name": "mobilenet_v2_tiny"})
    with pytest.raises(ValueError, match="nothing is left to choose"):
        models.create(config, 3)
    with pytest.raises(ValueError, match="nothing is left to choose"):
        models.create(resolve.check(config), 3)  # the data's classes are not known yet
