"""The models by name, and what each family's module exports beside them.

A builder is called with its options, `dtype` and `rngs`, and returns a backbone: a module with `features`, the channels of its maps, and
`map_size(height, width)`; it is called with (image [B,H,W,3], train=) and returns maps [B,h,w,features].

A family's module may export WEIGHTS (tuple of conversion.Weights), CONVERSION (layout → rules) and `head`, the builder of its own
ImageNet head where that is not a linear layer on pooled maps: called with (map_size, features, outputs, dropout=, dtype=, rngs=).
"""

import sys
from collections.abc import Callable
from types import ModuleType

from flax import nnx

from imgclf.models import cifar_resnet, cnn, convnext, densenet, efficientnet, inception_v3, mobilenet_v2, resnet, squeezenet, vgg, xception
from imgclf.models.conversion import Weights

BACKBONES: dict[str, Callable[..., nnx.Module]] = {
    "cnn": cnn.CNN,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet_tiny": resnet.resnet_tiny,
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
    "mobilenet_v2": mobilenet_v2.mobilenet_v2,
    "mobilenet_v2_035": mobilenet_v2.mobilenet_v2_035,
    "mobilenet_v2_050": mobilenet_v2.mobilenet_v2_050,
    "mobilenet_v2_075": mobilenet_v2.mobilenet_v2_075,
    "mobilenet_v2_130": mobilenet_v2.mobilenet_v2_130,
    "mobilenet_v2_140": mobilenet_v2.mobilenet_v2_140,
    "mobilenet_v2_tiny": mobilenet_v2.mobilenet_v2_tiny,
    "squeezenet1_0": squeezenet.squeezenet1_0,
    "squeezenet1_1": squeezenet.squeezenet1_1,
    "squeezenet_tiny": squeezenet.squeezenet_tiny,
    "convnext_tiny": convnext.convnext_tiny,
    "convnext_small": convnext.convnext_small,
    "convnext_base": convnext.convnext_base,
    "convnext_micro": convnext.convnext_micro,
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "efficientnet_tiny": efficientnet.efficientnet_tiny,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vgg_tiny": vgg.vgg_tiny,
    "inception_v3": inception_v3.inception_v3,
    "inception_v3_tiny": inception_v3.inception_v3_tiny,
    "xception": xception.xception,
    "xception_tiny": xception.xception_tiny,
    "densenet121": densenet.densenet121,
    "densenet169": densenet.densenet169,
    "densenet201": densenet.densenet201,
    "densenet_tiny": densenet.densenet_tiny,
}
NAMES: tuple[str, ...] = tuple(BACKBONES)


def family(name: str) -> ModuleType:
    """The module of a model."""
    return sys.modules[BACKBONES[name].__module__]


def families() -> list[ModuleType]:
    """The modules of all models, each once."""
    return list(dict.fromkeys(map(family, NAMES)))


def weights() -> dict[str, Weights]:
    """All published weights, by name."""
    return {entry.name: entry for module in families() for entry in getattr(module, "WEIGHTS", ())}
