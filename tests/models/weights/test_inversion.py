"""Tables read backwards give each published file's own names, shapes and numbers again."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from imgclf.models import registry
from imgclf.models.weights import conversion, inversion

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
NAMES = sorted(name for name in registry.weights() if name.startswith("timm/") and (GOLDEN / f"{name.replace('/', '_')}.json").exists())
QUICK = (  # the smallest of each table
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k",
    "timm/efficientnet_b0.ra_in1k",
    "timm/legacy_xception.tf_in1k",
    "timm/mobilenetv2_100.ra_in1k",
    "timm/mobilenetv3_large_100.ra_in1k",
    "timm/mobilenetv4_conv_medium.e500_r224_in1k",
    "timm/regnety_040.ra3_in1k",
    "timm/resnet18.tv_in1k",
    "timm/resnet18d.ra2_in1k",
    "timm/vgg16.tv_in1k",
    "timm/vit_base_patch14_reg4_dinov2.lvd142m",
    "timm/vit_base_patch16_siglip_224.v2_webli",
    "timm/vit_small_plus_patch16_dinov3.lvd1689m",
)


def small(name, shape):
    """A tensor of few different numbers with as many axes; 7x7 stays, as VGG's maps are of that size, and 1 stays 1."""
    shape = [min(size, 3 + axis) if axis < 2 or size > 7 else size for axis, size in enumerate(shape)]
    start = len(name) + sum(map(ord, name))
    return np.arange(start, start + math.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_a_file_comes_back_bit_by_bit(name):
    entry = registry.weights()[name]
    rules = registry.family(entry.model).conversion[entry.layout]
    shapes = json.loads((GOLDEN / f"{name.replace('/', '_')}.json").read_text())["tensors"]
    tensors = {key: small(key, shape) for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    ours = {}
    for key, tensor in tensors.items():
        path, transform = conversion.match(key, rules)
        ours[path] = transform(tensor)
    assert len(ours) == len(tensors)
    back = inversion.invert(conversion.nest(ours), {}, rules)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        if ".mlp.fc" in key and "_nano" in name:  # convolutions there, linear layers elsewhere: exports/timm.py knows
            tensor = tensor.reshape(back[key].shape)
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)


def test_a_parameter_without_a_name_is_named():
    with pytest.raises(LookupError, match="such as head/dense0/kernel"):
        inversion.invert({"head": {"dense0": {"kernel": np.zeros((2, 2), np.float32)}}}, {}, registry.family("resnet18").conversion["timm"])
