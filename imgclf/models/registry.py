"""The models by name, and what each family's module exports beside them.

A builder is called with its options, `dtype` and `rngs`, and returns a backbone: a module with `features`, the channels of its maps, and
`map_size(height, width)`; it is called with (image [B,H,W,3], train=) and returns maps [B,h,w,features].

A family's module may export WEIGHTS (tuple of conversion.Weights), CONVERSION (layout → rules) and `head`, the builder of its own
ImageNet head where that is not a linear layer on pooled maps: called with (map_size, features, outputs, dropout=, dtype=, rngs=); and
NEW_HEAD, the `model.head.kind` of a head for other classes where that is not "linear".
"""

import sys
from collections.abc import Callable
from types import ModuleType

from flax import nnx

from imgclf.models import cifar_resnet, cnn, convnext, densenet, efficientnet, inception_v3, mobilenet_v2, resnet, squeezenet, vgg, xception
from imgclf.models.weights.conversion import Weights

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

# Parameters with the published head (cnn: by default). Counting takes up to seconds a model, so that they stand here; a test counts
# them again. The variants for tests are left out.
PARAMETERS: dict[str, int] = {
    "cnn": 222_472,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v2_035": 1_677_128,
    "mobilenet_v2_050": 1_968_680,
    "mobilenet_v2_075": 2_636_424,
    "mobilenet_v2_130": 5_386_792,
    "mobilenet_v2_140": 6_108_776,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "efficientnet_b0": 5_288_548,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "inception_v3": 23_834_568,
    "xception": 22_855_952,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}


def family(name: str) -> ModuleType:
    """The module of a model."""
    return sys.modules[BACKBONES[name].__module__]


def new_head(name: str) -> str:
    """The `model.head.kind` that suits a model's backbone with classes of one's own."""
    return getattr(family(name), "NEW_HEAD", "linear")


def families() -> list[ModuleType]:
    """The modules of all models, each once."""
    return list(dict.fromkeys(map(family, NAMES)))


def weights() -> dict[str, Weights]:
    """All published weights, by name."""
    return {entry.name: entry for module in families() for entry in getattr(module, "WEIGHTS", ())}
