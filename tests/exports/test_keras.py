"""Keras's names: Keras itself loads the file, by the order of layers that it counts, and says what the network says."""

import os

import h5py
import numpy as np
import pytest
from untrained import KERAS, exportable, images, logits

from imgclf import UserError
from imgclf.exports import keras
from imgclf.exports.choices import Options
from imgclf.exports.programs import keras_network


def written(classifier, folder):
    keras.FORMAT.check(classifier, Options())
    return keras.FORMAT.write(classifier, folder, Options())["keras"]


def test_layers_are_counted_as_keras_counts_them(tmp_path):
    about = written(exportable("mobilenet_v2_035", KERAS), tmp_path)
    assert about == {"builder": "MobileNetV2", "arguments": {"classes": 5, "input_shape": [64, 96, 3], "alpha": 0.35}}
    with h5py.File(tmp_path / keras.MODEL_FILE) as file:
        names = {key: file[f"layers/{key}/vars"].attrs["name"] for key in ("conv2d", "conv2d_1", "conv2d_2", "depthwise_conv2d_1", "dense")}
        assert list(names.values()) == ["Conv1", "expanded_conv_project", "block_1_expand", "block_1_depthwise", "predictions"]
        assert file["layers/depthwise_conv2d/vars/0"].shape == (3, 3, 16, 1)


@pytest.mark.parametrize(
    ("model", "variant", "fields", "reason"),
    [
        ("resnet18", "", {}, "keras.applications has no 'resnet18': export it with to=onnx or to=stablehlo"),
        ("mobilenet_v2", "", {}, r"it has padding='same' where this run has 'the default'"),
        ("mobilenet_v2", KERAS, {"head.normalize": True}, "has no head like this run's"),
        ("vgg16", "", {"head.kind": "family"}, "does not average maps before its head"),
    ],
)
def test_what_keras_has_not_is_refused_with_the_formats_that_work(model, variant, fields, reason):
    with pytest.raises(UserError, match=reason):
        keras.FORMAT.check(exportable(model, variant, zeros=True, **fields), Options())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "variant", "size"),
    [
        ("mobilenet_v2", KERAS, (64, 96)),
        ("densenet121", "", (64, 96)),  # whose epsilon is another: the variances make up for it
        ("efficientnet_b0", KERAS, (64, 96)),  # which normalises by itself
        ("efficientnet_v2_s", KERAS, (64, 96)),
        ("convnext_tiny", "", (64, 96)),  # layers in a Sequential
        ("xception", KERAS, (80, 96)),
        ("inception_v3", "counts_padding=False, use_scale=False, momentum=0.99, unbiased=False", (80, 96)),
        ("resnet50", "stride_first=True, conv_bias=True, epsilon=1.001e-5, momentum=0.99, unbiased=False", (64, 96)),
    ],
)
def test_keras_says_what_the_network_says(model, variant, size, tmp_path):
    os.environ["KERAS_BACKEND"] = "jax"
    pytest.importorskip("keras")
    classifier = exportable(model, variant, size=size)
    written(classifier, tmp_path)
    shown = images(size)
    wanted = logits(classifier, shown)
    assert np.abs(keras_network.load(tmp_path)(shown)["logits"] - wanted).max() < 1e-4 * np.ptp(wanted)
