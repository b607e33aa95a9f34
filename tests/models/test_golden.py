"""Every family answers as torchvision's or timm's network does, given the same random weights; see tests/golden/make_golden.py."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import random_weights
from converted import convert, difference, network
from flax import nnx

from imgclf.models import layers, registry
from imgclf.models.weights import conversion, pretrained

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NAMES = sorted(name for name in registry.weights() if (GOLDEN / f"{name.replace('/', '_')}.npz").exists())
CLASSES = 10
# Of a family's networks, the smallest is compared at every run; ResNet-50 with Keras's, in test_keras_parity.py.
SLOW = (
    "timm/convnext_tiny.fb_in1k",
    "timm/tf_efficientnet_b0.in1k",
    "torchvision/convnext_tiny.v1",
    "torchvision/efficientnet_b0.v1",
    "timm/resnet50.a1_in1k",
    "timm/resnext50_32x4d.a1h_in1k",  # ResNet-50's blocks, with groups: test_layers.py, and their kernels: test_conversion.py
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k",
    "timm/efficientnet_b1.ra4_e3600_r240_in1k",
    "timm/tf_efficientnet_b4.ns_jft_in1k",
    "torchvision/efficientnet_b2.v1",
    "timm/tf_efficientnetv2_s.in21k_ft_in1k",
    "timm/tf_efficientnetv2_m.in21k_ft_in1k",
    "torchvision/efficientnet_v2_s.v1",
    "timm/mobilenetv4_conv_medium.e500_r224_in1k",
    "timm/regnety_160.lion_in12k_ft_in1k",
    "timm/resnet50d.ra2_in1k",
    "torchvision/mobilenet_v3_large.v1",
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    "timm/vit_base_patch16_dinov3.lvd1689m",
    "timm/vit_small_patch16_dinov3.lvd1689m",
    "torchvision/regnet_y_8gf.v1",
)
SLIM = {"vgg16": {"hidden": 64}}  # the head's options in make_golden.py


def read_answers(name):
    return np.load(GOLDEN / f"{name.replace('/', '_')}.npz")


def test_all_answers_are_compared():
    assert len(NAMES) == len(list(GOLDEN.glob("*_*.*.npz")))


def read_description(name):
    return json.loads((GOLDEN / f"{name.replace('/', '_')}.json").read_text())


def our_network(entry, description, **options):
    entry = dataclasses.replace(entry, variant={**entry.variant, **description.get("variant", {})})
    return network(entry, (2, *description["size"], 3), CLASSES, **SLIM.get(entry.model, {}), **options)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES])
def test_logits_equal_the_originals(name):
    answer = read_answers(name)["logits"]
    entry, description = registry.weights()[name], read_description(name)
    ours = our_network(entry, description)
    weights = convert(entry, random_weights.torch_weights(description["tensors"], entry.model), ours)
    logits, _ = ours.apply(*weights, random_weights.images(2, *description["size"]))
    random_weights.assert_telling(answer)
    assert difference(logits, answer) < 1e-4

    norms = [module for _, module in nnx.iter_graph(ours.abstract) if isinstance(module, layers.BatchNorm)]
    assert all(norm.unbiased for norm in norms)
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(epsilon, 1 - momentum) for epsilon, momentum in description["batch_norm"]}


@pytest.mark.parametrize("name", [name for name in SLOW if "/vit_" not in name])  # whose position embedding is of the images' size
def test_every_tensor_has_a_place_of_its_own(name):
    """What of the slow comparisons costs little: no two tensors of a file go to one place, and none of the network's is left out."""
    entry, tensors = registry.weights()[name], read_description(name)["tensors"]
    shapes = pretrained.converted_shapes(tensors, registry.family(entry.model).conversion[entry.layout])
    assert len(shapes) == sum(not tensor.endswith("num_batches_tracked") for tensor in tensors)
    count = sum(math.prod(shape) for path, shape in shapes.items() if not path.endswith(("/mean", "/var")))
    features, classes = shapes["head/logits/kernel"]
    if entry.variant:
        return  # another network than the one whose parameters are stated
    assert count + (entry.num_classes - classes) * (features + 1) == registry.parameters()[entry.model]


def test_training_mode_equals_torchs():
    name = "timm/resnet18.tv_in1k"
    answers = read_answers(name)
    entry, description = registry.weights()[name], read_description(name)
    ours = our_network(entry, description, train=True)
    tensors = random_weights.torch_weights(description["tensors"], entry.model)
    logits, batch_stats = ours.apply(*convert(entry, tensors, ours), random_weights.images(2, *description["size"]))
    assert difference(logits, answers["training"]) < 1e-4

    updated = {key: answers[f"training {key}"] for key in tensors if key.endswith(("running_mean", "running_var"))}
    _, expected = convert(entry, tensors | updated, ours)
    got, expected = conversion.flatten(batch_stats), conversion.flatten(expected)
    assert got.keys() == expected.keys()
    assert len(got) == 40
    for path, value in expected.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-4, atol=1e-5, err_msg=path)
