"""The layers of each network in the order of `model.layers` in keras.applications, for freezing "the first N layers".

Keras orders layers by depth and then by creation, so that branches interleave. Here each layer is a path under `backbone/`, or "" where it
has no parameters (input, padding, activation, pooling, addition). The order is that of Keras 3, and the same with and without
`include_top`; a test compares every place with Keras itself.
"""

from collections.abc import Sequence

from imgclf.errors import UserError
from imgclf.models import efficientnet, efficientnet_v2, inception_v3
from imgclf.models.blocks import InvertedResidualStage
from imgclf.models.weights import conversion


def first(model: str, count: int) -> frozenset[str]:
    """Paths of the layers among the first `count` of `model.layers` in Keras, such as `backbone/block1/conv1`.

    Raises:
      UserError: if Keras has no such network, or its backbone has fewer layers.
    """
    layers = of(model)
    if not layers:
        raise UserError(
            f"config.freeze.preset='first_{count}_layers' counts the layers of keras.applications, which has no {model!r}; "
            "name parameters in config.freeze.table with preset='table' instead."
        )
    if count > len(layers):
        raise UserError(f"config.freeze.preset='first_{count}_layers': the backbone of {model!r} has {len(layers)} layers in Keras.")
    return frozenset(f"backbone/{layer}" for layer in layers[:count] if layer)


def of(model: str) -> tuple[str, ...]:
    """All layers of a backbone in Keras's order; () where Keras has no such network."""
    if model in ("vgg16", "vgg19"):
        return _vgg((2, 2, 3, 3, 3) if model == "vgg16" else (2, 2, 4, 4, 4))
    if model in _RESNETS:
        return _resnet(_RESNETS[model])
    if model in _DENSENETS:
        return _densenet(_DENSENETS[model])
    if model in _CONVNEXTS:
        return _convnext(_CONVNEXTS[model])
    if model in ("mobilenet_v2", *(f"mobilenet_v2_{width}" for width in ("035", "050", "075", "130", "140"))):
        return _mobilenet_v2()
    if model in _EFFICIENTNETS:
        return _efficientnet(_EFFICIENTNETS[model], normalizes="v2" not in model)
    return {"inception_v3": _inception_v3, "xception": _xception}.get(model, tuple)()


_RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_DENSENETS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32), "densenet201": (6, 12, 48, 32)}
_EFFICIENTNETS = {f"efficientnet_{size}": efficientnet.stages(size) for size in ("b0", "b1", "b2", "b3", "b4")}
_EFFICIENTNETS |= {f"efficientnet_v2_{size}": stages for size, stages in efficientnet_v2.STAGES.items()}
_CONVNEXTS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3), "convnext_base": (3, 3, 27, 3)}


def _layers(text: str, path: str = "") -> list[str]:
    """`"conv1 bn1 ."` to paths; a dot is a layer without parameters."""
    return ["" if layer == "." else path + layer for layer in text.split()]


def _vgg(depths: tuple[int, ...]) -> tuple[str, ...]:
    layers = [""]
    for block, convs in enumerate(depths, start=1):
        layers += [f"block{block}/conv{i}" for i in range(1, convs + 1)] + [""]
    return tuple(layers)


def _resnet(depths: tuple[int, ...]) -> tuple[str, ...]:
    layers = _layers(". . stem/conv stem/bn . . .")
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            end = "downsample/conv conv3 downsample/bn bn3" if block == 0 else "conv3 bn3"
            layers += _layers(f"conv1 bn1 . conv2 bn2 . {end} . .", f"stage{stage}/{block}/")
    return tuple(layers)


def _densenet(depths: tuple[int, ...]) -> tuple[str, ...]:
    layers = _layers(". . stem/conv stem/bn . . .")
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            layers += _layers("bn1 . conv1 bn2 . conv2 .", f"block{block}/layer{layer}/")
        layers += _layers("bn . conv .", f"transition{block}/") if block < len(depths) else _layers("bn .")
    return tuple(layers)


def _convnext(depths: tuple[int, ...]) -> tuple[str, ...]:
    layers = ["", ""]  # input, normalisation of pixels
    for stage, depth in enumerate(depths, start=1):
        layers.append("stem" if stage == 1 else f"downsample{stage}")
        for block in range(depth):
            layers += _layers("depthwise norm expand . project layer_scale .", f"stage{stage}/{block}/")
    return tuple(layers)


def _mobilenet_v2() -> tuple[str, ...]:
    layers = _layers(". stem/conv stem/bn .")
    layers += _layers("depthwise/conv depthwise/bn . project/conv project/bn", "blocks/0/")
    for block in range(1, 17):
        pad = ". " if block in (1, 3, 6, 13) else ""  # where the maps are halved
        add = "" if block in (1, 3, 6, 10, 13, 16) else " ."
        layers += _layers(
            f"expand/conv expand/bn . {pad}depthwise/conv depthwise/bn . project/conv project/bn{add}",
            f"blocks/{block}/",
        )
    return (*layers, *_layers("last/conv last/bn ."))


def _efficientnet(stages: Sequence[InvertedResidualStage], *, normalizes: bool) -> tuple[str, ...]:
    # Input, rescaling; of the first version also normalisation, a second rescaling, which only weights="imagenet" brings, and padding.
    layers = _layers(". . . . . stem/conv stem/bn ." if normalizes else ". . stem/conv stem/bn .")
    shapes = [(stage, i) for stage in stages for i in range(stage.depth)]
    for block, (stage, i) in enumerate(shapes):
        before = shapes[block - 1][0].features if block else None  # the stem's, of as many channels as the second version's first stage
        stays = not (i == 0 and stage.stride == 2) and (before == stage.features or (block == 0 and stage.fused))
        add = (" . ." if block else " .") if stays else ""  # stochastic depth, but for block 0, and addition
        expand = "expand/conv expand/bn . " if stage.expansion > 1 else ""
        pad = ". " if normalizes and i == 0 and stage.stride == 2 else ""
        if stage.fused:
            middle, after = "", "" if stage.expansion > 1 else " ."
        else:
            middle, after = f"{pad}depthwise/conv depthwise/bn . . . se/reduce se/expand . ", ""
        layers += _layers(f"{expand}{middle}project/conv project/bn{after}{add}", f"blocks/{block}/")
    return (*layers, *_layers("last/conv last/bn ."))


def _xception() -> tuple[str, ...]:
    layers = _layers(". conv1 bn1 . conv2 bn2 .")
    for block in range(1, 13):
        if block in (1, 2, 3, 12):
            first_relu = "" if block == 1 else ". "
            layers += _layers(f"{first_relu}conv1 bn1 . conv2 bn2 skip/conv . skip/bn .", f"block{block}/")
        else:
            layers += _layers(". conv1 bn1 . conv2 bn2 . conv3 bn3 .", f"block{block}/")
    return (*layers, *_layers("conv3 bn3 . conv4 bn4 ."))


def _inception_v3() -> tuple[str, ...]:
    # The convolutions (c) and normalisations (b) of a block by their number within it, those of all branches together.
    with_5x5 = "c3 b3 . c1 c4 b1 b4 . . . c0 c2 c5 c6 b0 b2 b5 b6 . . . . ."
    to_17 = "c1 b1 . c2 b2 . c0 c3 b0 b3 . . . ."
    with_7x7 = "c4 b4 . c5 b5 . c1 c6 b1 b6 . . c2 c7 b2 b7 . . . c0 c3 c8 c9 b0 b3 b8 b9 . . . . ."
    to_8 = "c2 b2 . c3 b3 . c0 c4 b0 b4 . . c1 c5 b1 b5 . . . ."
    wide = "c4 b4 . c1 c5 b1 b5 . . c2 c3 c6 c7 . c0 b2 b3 b6 b7 c8 b0 . . . . b8 . . . . ."
    stem = ". c0 b0 . c1 b1 . c2 b2 . . c3 b3 . c4 b4 . ."
    layers, made = [], 0
    for text in (stem, *[with_5x5] * 3, to_17, *[with_7x7] * 4, to_8, *[wide] * 2):
        tokens = text.split()
        for token in tokens:
            layers.append("" if token == "." else _inception_layer(made + int(token[1:]), token[0] == "b"))
        made += sum(token[0] == "c" for token in tokens)
    return tuple(layers)


def _inception_layer(number: int, norm: bool) -> str:
    name = f"conv2d_{number}/kernel" if number else "conv2d/kernel"
    rule = conversion.match(name, inception_v3.CONVERSION["keras"])
    if rule is None or rule[0] is None:
        raise KeyError(name)
    return rule[0].removeprefix("backbone/").removesuffix("/conv/kernel") + ("/bn" if norm else "/conv")
