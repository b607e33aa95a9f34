"""EfficientNet-B0: Tan and Le, 2019 (https://arxiv.org/abs/1905.11946), table 1.

Parameter paths: `stem/{conv,bn}`, `blocks/0/{expand,depthwise,project}/{conv,bn}` and `blocks/0/se/{reduce,expand}` to `blocks/15`,
`last/{conv,bn}`; block 0 has no `expand`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from imgclf.models import layers
from imgclf.models.backbone import Backbone, Model
from imgclf.models.cpu import depthwise
from imgclf.models.initializers import HE_NORMAL_FAN_OUT
from imgclf.models.mobilenet_v2 import ConvNorm
from imgclf.models.resnet import Stage
from imgclf.models.weights.conversion import Rule, Weights, batch_norm, conv, keras_batch_norm, keras_depthwise, linear, same

# expansion, channels, blocks, stride of the first one, kernel of the depthwise convolutions
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class SqueezeExcite(nnx.Module):
    """Scales each channel by a sigmoid of two dense layers on the average of all (Hu et al., 2018): `reduce`, `expand`."""

    def __init__(self, features: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        options = {"kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "param_dtype": jnp.float32, "rngs": rngs}
        self.reduce = nnx.Linear(features, width, **options)
        self.expand = nnx.Linear(width, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = x.astype(jnp.float32).mean((1, 2))
        gate = jax.nn.sigmoid(self.expand(jax.nn.silu(self.reduce(pooled))))
        return x * gate[:, None, None].astype(x.dtype)


class Block(nnx.Module):
    """MBConv: expand (1x1), depthwise, squeeze-and-excitation, project (1x1, no activation); a shortcut where the shape stays."""

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        expansion: int,
        stride: int,
        kernel: int,
        padding: str,
        norm: dict[str, Any],
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        options = {"kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "rngs": rngs}
        width = in_features * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand = ConvNorm(layers.Conv(in_features, width, 1, **options), width, norm, rngs)
        edges = "same" if padding == "same" else None
        conv = depthwise.DepthwiseConv(width, kernel, stride=stride, padding=edges, dtype=dtype, rngs=rngs)  # He over its own fan, k²
        self.depthwise = ConvNorm(conv, width, norm, rngs)
        self.se = SqueezeExcite(width, max(1, in_features // 4), dtype=dtype, rngs=rngs)
        self.project = ConvNorm(layers.Conv(width, features, 1, **options), features, norm, rngs)
        self.residual = stride == 1 and in_features == features

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = jax.nn.silu(self.expand(x, train=train)) if self.expands else x
        y = self.se(jax.nn.silu(self.depthwise(y, train=train)))
        y = self.project(y, train=train)
        return x + y if self.residual else y


class EfficientNet(Backbone):
    """Stem (3x3/2), MBConv blocks, and a 1x1 convolution; SiLU throughout. No stochastic depth in training.

    `padding` at stride 2 is "symmetric" as in torch, or "same" as in TensorFlow (right and bottom of even sizes).
    """

    def __init__(
        self,
        *,
        stem: int = 32,
        stages: tuple[tuple[int, int, int, int, int], ...] = _STAGES,
        last: int = 1280,
        padding: str = "symmetric",
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        unbiased: bool = True,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"kernel_init": HE_NORMAL_FAN_OUT, "dtype": dtype, "rngs": rngs}
        norm = {"epsilon": epsilon, "momentum": momentum, "unbiased": unbiased}
        self.pads_same = padding == "same"
        edges = ((0, 0), (0, 0)) if self.pads_same else None
        self.stem = ConvNorm(layers.Conv(3, stem, 3, stride=2, padding=edges, **options), stem, norm, rngs)
        features, blocks = stem, []
        for expansion, channels, depth, first_stride, kernel in stages:
            for i in range(depth):
                shape = {"expansion": expansion, "stride": first_stride if i == 0 else 1, "kernel": kernel}
                blocks.append(Block(features, channels, **shape, padding=padding, norm=norm, dtype=dtype, rngs=rngs))
                features = channels
        self.blocks = Stage(blocks)
        self.last = ConvNorm(layers.Conv(features, last, 1, **options), last, norm, rngs)
        self.features = last
        self.halvings = 1 + sum(stride == 2 for *_, stride, _ in stages)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the maps of images of this size: a 32nd, rounded up."""
        return -(-height // 2**self.halvings), -(-width // 2**self.halvings)

    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        x = depthwise.pad_same(image, 3, 2) if self.pads_same else image
        x = jax.nn.silu(self.stem(x, train=train))
        x = self.blocks(x, train=train)
        return jax.nn.silu(self.last(x, train=train))


def efficientnet_b0(**options: Any) -> EfficientNet:
    return EfficientNet(**options)


def efficientnet_tiny(**options: Any) -> EfficientNet:
    """Four blocks of few channels: for tests."""
    return EfficientNet(stem=8, stages=((1, 8, 1, 1, 3), (6, 16, 2, 2, 5), (6, 24, 1, 2, 3)), last=64, **options)


MODELS = {
    "efficientnet_b0": Model(efficientnet_b0, 5_288_548),
    "efficientnet_tiny": Model(efficientnet_tiny),
}

_TF = {"padding": "same", "epsilon": 1e-3}  # of TensorFlow's networks; the momentum is timm's
_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(name: str, top1: float, variant: dict[str, Any]) -> Weights:
    return Weights(
        f"timm/{name}",
        "efficientnet_b0",
        "timm",
        variant=variant,
        repo=f"timm/{name}",
        top1=top1,
        licence="apache-2.0",
        source=_RESULTS,
    )


WEIGHTS: tuple[Weights, ...] = (
    _timm("efficientnet_b0.ra_in1k", 77.698, {}),
    _timm("tf_efficientnet_b0.in1k", 76.542, _TF),
    _timm("tf_efficientnet_b0.ns_jft_in1k", 78.680, _TF),
    Weights(
        "torchvision/efficientnet_b0.v1",
        "efficientnet_b0",
        "torchvision",
        file="efficientnet_b0_rwightman-7f5810bc.safetensors",
        top1=77.692,
        licence="bsd-3-clause",
        source="https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth",
    ),
    # Keras rescales and normalises within the model, by layers that amount to mean and std.
    Weights(
        "keras/efficientnetb0",
        "efficientnet_b0",
        "keras",
        variant={**_TF, "momentum": 0.99, "unbiased": False},
        file="efficientnetb0.h5",
        top1=77.1,
        source="https://storage.googleapis.com/keras-applications/efficientnetb0.h5",
    ),
)


def _blocks() -> list[tuple[int, int, int]]:
    """(stage, block in it, block in all), from 0."""
    places = [(stage, i) for stage, (_, _, depth, _, _) in enumerate(_STAGES) for i in range(depth)]
    return [(stage, i, n) for n, (stage, i) in enumerate(places)]


def _torch(conv_name: str, norm_name: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{conv_name}\.weight", f"{path}/conv/kernel", conv), *batch_norm(norm_name, f"{path}/bn"))


def _dense(layer: str, path: str) -> tuple[Rule, ...]:
    return ((rf"{layer}\.weight", f"{path}/kernel", linear), (rf"{layer}\.bias", f"{path}/bias", same))


def _timm_rules() -> tuple[Rule, ...]:
    rules = [*_torch("conv_stem", "bn1", "backbone/stem")]
    for stage, i, n in _blocks():
        layer, path = rf"blocks\.{stage}\.{i}\.", f"backbone/blocks/{n}"
        # without an expansion, layers count from the depthwise one
        names = [("expand", "conv_pw")] * (n > 0) + [("depthwise", "conv_dw"), ("project", "conv_pwl" if n > 0 else "conv_pw")]
        for place, (part, name) in enumerate(names, start=1):
            rules += _torch(layer + name, f"{layer}bn{place}", f"{path}/{part}")
        rules += _dense(rf"{layer}se\.conv_(reduce|expand)", rf"{path}/se/\1")
    rules += _torch("conv_head", "bn2", "backbone/last")
    return (*rules, *_dense("classifier", "head/logits"))


def _torchvision_rules() -> tuple[Rule, ...]:
    rules = [*_torch(r"features\.0\.0", r"features\.0\.1", "backbone/stem")]
    for stage, i, n in _blocks():
        layer, path, parts = rf"features\.{stage + 1}\.{i}\.block\.", f"backbone/blocks/{n}", ["depthwise", "se", "project"]
        for place, part in enumerate(["expand"] * (n > 0) + parts):
            if part == "se":
                rules += _dense(rf"{layer}{place}\.fc1", f"{path}/se/reduce") + _dense(rf"{layer}{place}\.fc2", f"{path}/se/expand")
            else:
                rules += _torch(rf"{layer}{place}\.0", rf"{layer}{place}\.1", f"{path}/{part}")
    rules += _torch(r"features\.8\.0", r"features\.8\.1", "backbone/last")
    return (*rules, *_dense(r"classifier\.1", "head/logits"))


def _keras_dense(kernel: np.ndarray) -> np.ndarray:
    """Keras 1x1 convolution [1,1,in,out] to a dense layer [in,out]."""
    return kernel.reshape(kernel.shape[2:])


def _keras_rules() -> tuple[Rule, ...]:
    rules = [
        (r"normalization(_\d+)?/(mean|variance|count)", None, same),  # stands in the weights' mean and std
        ("stem_conv/kernel", "backbone/stem/conv/kernel", same),
        *keras_batch_norm("stem_bn", "backbone/stem/bn"),
    ]
    for stage, i, n in _blocks():
        layer, path = f"block{stage + 1}{chr(ord('a') + i)}_", f"backbone/blocks/{n}"
        rules += [
            (f"{layer}(expand|project)_conv/kernel", rf"{path}/\1/conv/kernel", same),
            *keras_batch_norm(f"{layer}(expand|project)_bn", rf"{path}/\1/bn"),
            (f"{layer}dwconv/(depthwise_)?kernel", f"{path}/depthwise/conv/kernel", keras_depthwise),
            *keras_batch_norm(f"{layer}bn", f"{path}/depthwise/bn"),
            (f"{layer}se_(reduce|expand)/kernel", rf"{path}/se/\1/kernel", _keras_dense),
            (f"{layer}se_(reduce|expand)/bias", rf"{path}/se/\1/bias", same),
        ]
    return (
        *rules,
        ("top_conv/kernel", "backbone/last/conv/kernel", same),
        *keras_batch_norm("top_bn", "backbone/last/bn"),
        ("predictions/kernel", "head/logits/kernel", same),
        ("predictions/bias", "head/logits/bias", same),
    )


CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": _timm_rules(), "torchvision": _torchvision_rules(), "keras": _keras_rules()}
