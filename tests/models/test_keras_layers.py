"""Keras's counting of layers, against Keras's own networks."""

import os
import re

import pytest

from imgclf.errors import UserError
from imgclf.models import keras_layers, registry
from imgclf.models.weights import conversion

os.environ["KERAS_BACKEND"] = "jax"

# our name: Keras's builder, its options
NETWORKS = {
    "vgg16": ("VGG16", {}),
    "vgg19": ("VGG19", {}),
    "mobilenet_v2": ("MobileNetV2", {"alpha": 1.0}),
    "mobilenet_v2_035": ("MobileNetV2", {"alpha": 0.35}),
    "inception_v3": ("InceptionV3", {}),
    "xception": ("Xception", {}),
    "densenet121": ("DenseNet121", {}),
    "densenet201": ("DenseNet201", {}),
    "resnet50": ("ResNet50", {}),
    "resnet152": ("ResNet152", {}),
    "efficientnet_b0": ("EfficientNetB0", {}),
    "efficientnet_b1": ("EfficientNetB1", {}),
    "efficientnet_v2_s": ("EfficientNetV2S", {}),
    "efficientnet_v2_m": ("EfficientNetV2M", {}),
    "convnext_tiny": ("ConvNeXtTiny", {}),
    "convnext_small": ("ConvNeXtSmall", {}),
}
SECOND_PROOFS = ("mobilenet_v2", "densenet201", "resnet152", "convnext_small", "efficientnet_b1", "efficientnet_v2_m")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SECOND_PROOFS else name for name in NETWORKS])
def test_every_place_is_the_layer_that_keras_has_there(name):
    """The slow ones repeat the blocks of a smaller relative, or differ from it in width only."""
    keras = pytest.importorskip("keras")
    builder, options = NETWORKS[name]
    with keras.StatelessScope(initialize_variables=False):
        theirs = getattr(keras.applications, builder)(weights=None, include_top=False, input_shape=(96, 96, 3), **options).layers
    keras.utils.clear_session()
    layout = next(entry.layout for entry in registry.weights(name).values() if entry.name.startswith("keras/"))
    rules, ours = registry.family(name).conversion[layout], list(keras_layers.of(name))
    if name in ("efficientnet_b0", "efficientnet_b1"):
        del ours[3]  # weights="imagenet" brings a second rescaling
    if name.startswith("convnext"):
        ours.append("head/norm")  # it belongs to the maps there
    assert len(ours) == len(theirs)
    for place, (path, layer) in enumerate(zip(ours, theirs, strict=True)):
        variables = ["/".join(variable.path.split("/")[-2:]) for variable in layer.weights]
        if isinstance(layer, keras.layers.DepthwiseConv2D):  # which Keras 2 and its files tell apart by name
            variables = [variable.replace("/kernel", "/depthwise_kernel") for variable in variables]
        found = [conversion.match(variable, rules) for variable in variables]
        assert None not in found, variables
        paths = [target for target, _ in found if target is not None]
        if not path:
            assert not paths, f"place {place}: {layer.name}"
        else:
            assert paths, f"place {place}: {layer.name} has no parameters, here it is {path}"
            part = path if path.startswith("head/") else f"backbone/{path}"
            assert all(target.startswith(f"{part}/") for target in paths), f"place {place}: {layer.name} is {paths}, not {path}"


def test_every_network_that_has_weights_of_keras_is_counted():
    with_keras = {entry.model for entry in registry.weights().values() if entry.name.startswith("keras/")}
    assert {name for name in registry.NAMES if keras_layers.of(name)} == with_keras


def test_the_first_fifteen_of_vgg16_are_blocks_one_to_four():
    paths = keras_layers.first("vgg16", 15)
    assert len(paths) == 10
    assert {re.sub(r"/conv\d", "", path) for path in paths} == {f"backbone/block{i}" for i in range(1, 5)}
    assert keras_layers.first("vgg16", 16) - paths == {"backbone/block5/conv1"}


def test_networks_that_keras_lacks_and_too_many_layers_are_refused():
    with pytest.raises(UserError, match=r"keras\.applications, which has no 'resnet18'.*table"):
        keras_layers.first("resnet18", 5)
    with pytest.raises(UserError, match="'vgg16' has 19 layers"):
        keras_layers.first("vgg16", 20)
