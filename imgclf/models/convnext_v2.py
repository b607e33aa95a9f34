"""ConvNeXt V2: Woo et al., 2023 (https://arxiv.org/abs/2301.00808), section 3.2: ConvNeXt with global response normalisation.

Parameter paths, and the names in published files, are those of ConvNeXt, with `response_norm` between `expand` and `project` and without
`layer_scale`. The published weights were pretrained to fill in masked patches (FCMAE), then fine-tuned.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from imgclf.models import convnext
from imgclf.models.backbone import Model
from imgclf.models.convnext import ConvNeXt
from imgclf.models.heads import average
from imgclf.models.weights.conversion import Rule, Weights, same


class GlobalResponseNorm(nnx.Module):
    """Adds to each channel itself times how strongly it responds over the whole map, relative to the other channels: `scale`, `bias`.

    Both start at 0, so that the layer starts as the identity. Norms and sums are computed in float32.
    """

    def __init__(self, features: int, epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.zeros(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        energy = average(jnp.square(x.astype(jnp.float32)))[:, None, None] * (x.shape[1] * x.shape[2])  # a mean, as that is fast on the CPU
        # the gradient at the norm 0 is taken as 0, as torch does: GELU makes whole channels 0
        response = jnp.where(energy > 0, jnp.sqrt(jnp.where(energy > 0, energy, 1.0)), 0.0)
        relative = response / (response.mean(-1, keepdims=True) + self.epsilon)
        return x * (1 + self.scale[...] * relative).astype(x.dtype) + self.bias[...].astype(x.dtype)


def _convnext_v2(depths: tuple[int, ...], widths: tuple[int, ...], **options: Any) -> ConvNeXt:
    return ConvNeXt(depths, widths, layer_scale=None, response_norm=GlobalResponseNorm, **options)


convnextv2_nano = functools.partial(_convnext_v2, (2, 2, 8, 2), (80, 160, 320, 640))
convnextv2_tiny = functools.partial(_convnext_v2, (3, 3, 9, 3), (96, 192, 384, 768))
convnextv2_micro = functools.partial(_convnext_v2, (1, 1), (16, 32))  # for tests

MODELS = {
    "convnextv2_nano": Model(convnextv2_nano, 15_623_800),
    "convnextv2_tiny": Model(convnextv2_tiny, 28_635_496),
    "convnextv2_micro": Model(convnextv2_micro),
}
HEAD, NEW_HEAD = convnext.HEAD, convnext.NEW_HEAD

_RESULTS = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"


def _timm(name: str, top1: float, crop: float, side: int, gmacs: float) -> Weights:
    return Weights(
        f"timm/{name}",
        name.split(".")[0],
        "timm",
        (side, side),
        crop_fraction=crop,
        interpolation="bicubic",
        repo=f"timm/{name}",
        top1=top1,
        soft_labels=True,
        gmacs=gmacs,  # of timm's results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv
        licence="cc-by-nc-4.0",
        commercial=False,
        source=_RESULTS,
    )


# timm squashes what it evaluates at 384 pixels instead of cropping it.
WEIGHTS: tuple[Weights, ...] = (
    _timm("convnextv2_nano.fcmae_ft_in22k_in1k", 82.038, 0.875, 224, 2.46),
    _timm("convnextv2_nano.fcmae_ft_in22k_in1k_384", 83.366, 1.0, 384, 7.22),
    _timm("convnextv2_nano.fcmae_ft_in1k", 81.856, 0.875, 224, 2.46),
    _timm("convnextv2_tiny.fcmae_ft_in22k_in1k", 83.904, 0.875, 224, 4.47),
    _timm("convnextv2_tiny.fcmae_ft_in22k_in1k_384", 85.098, 1.0, 384, 13.14),
    _timm("convnextv2_tiny.fcmae_ft_in1k", 82.948, 0.875, 224, 4.47),
)

_RESPONSE_NORM: tuple[Rule, ...] = tuple(
    (rf"stages\.{i}\.blocks\.(\d+)\.mlp\.grn\.{theirs}", rf"backbone/stage{i + 1}/\1/response_norm/{ours}", same)
    for i in range(4)
    for theirs, ours in (("weight", "scale"), ("bias", "bias"))
)
CONVERSION: dict[str, tuple[Rule, ...]] = {"timm": (*convnext.CONVERSION["timm"], *_RESPONSE_NORM)}
