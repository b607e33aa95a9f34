"""Weights and images from numpy alone, the same on every machine, for which a network's activations neither vanish nor explode.

`tests/golden/make_golden.py` gives them to the originals, the tests to ours.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

_FIXED = {"num_batches_tracked": 1}


def _uniform(name: str, shape: Sequence[int], low: float, high: float) -> np.ndarray:
    # RandomState's stream is frozen, Generator's is not; one per tensor, so that its order does not matter
    numbers = np.random.RandomState(zlib.crc32(name.encode())).random_sample(math.prod(shape))
    return (low + (high - low) * numbers).astype(np.float32).reshape(shape)


def tensor(name: str, shape: Sequence[int], *, fan_in: int, gain: float) -> np.ndarray:
    """A tensor by its name in a file of torchvision, timm or Keras: `layer1.0.bn1.weight`, `conv1_bn/moving_variance`.

    Kernels have the variance gain / fan_in.
    """
    leaf = name.replace("/", ".").rsplit(".", 1)[-1]
    if leaf in _FIXED:
        return np.full(shape, _FIXED[leaf], np.int64)
    if leaf in ("running_var", "moving_variance"):
        return _uniform(name, shape, 0.5, 1.5)
    if leaf in ("bias", "beta", "running_mean", "moving_mean"):
        return _uniform(name, shape, -0.2, 0.2)
    if leaf in ("cls_token", "reg_token", "pos_embed", "latent"):  # about as large as the patches' tokens
        return _uniform(name, shape, -1, 1)
    if leaf in ("gamma", "layer_scale", "variable") or len(shape) == 1:
        return _uniform(name, shape, 0.5, 1.5)
    if "pointwise." in name or leaf == "pointwise_kernel":  # Xception's, which no ReLU comes before
        gain /= 2
    bound = math.sqrt(3 * gain / fan_in)
    return _uniform(name, shape, -bound, bound)


def gain(model: str) -> float:
    """The kernels' gain for a model of `imgclf.models`.

    2 keeps the variance through ReLU (He et al., 2015). Sums along deep residual networks grow with it, until the biases of late layers
    are lost in rounding.
    """
    # Between the two, squeeze-and-excitation's gates are neither wide open nor shut.
    gated = {"mobilenet_v3": 1.5, "efficientnet_v2_s": 1.1, "efficientnet_v2_m": 1.0, "efficientnet_b0": 2.0, "efficientnet_b": 1.8}
    for start, value in gated.items():
        if model.startswith(start):
            return value
    return 1.0 if model.startswith(("mobilenet_v4", "regnet", "resnet", "resnext", "xception")) else 2.0


def torch_weights(shapes: Mapping[str, Sequence[int]], model: str) -> dict[str, np.ndarray]:
    """A state dict: kernels are [out,in,kh,kw]."""
    return {name: tensor(name, shape, fan_in=math.prod(shape[1:]), gain=gain(model)) for name, shape in shapes.items()}


def keras_weights(shapes: Mapping[str, Sequence[int]], model: str) -> dict[str, np.ndarray]:
    """Weights by `layer/variable`: kernels are [kh,kw,in,out], depthwise ones [kh,kw,in,1]."""
    fans = {name: math.prod(shape[: 2 if len(shape) == 4 and shape[-1] == 1 else -1]) for name, shape in shapes.items()}
    return {name: tensor(name, shape, fan_in=fans[name], gain=gain(model)) for name, shape in shapes.items()}


def images(count: int, height: int, width: int) -> np.ndarray:
    """Normalised images, float32 [B,H,W,3]: blocks of colour, of a contrast that grows from image to image, and noise."""
    blocks = _uniform("blocks", (count, -(-height // 16), -(-width // 16), 3), -2, 2)
    blocks = blocks.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    contrast = np.linspace(0.5, 1.0, count, dtype=np.float32)[:, None, None, None]
    return contrast * blocks + _uniform("noise", (count, height, width, 3), -0.5, 0.5)


def assert_telling(logits: np.ndarray) -> None:
    """Logits [B,C] that differ between classes and images: else two networks that differ could agree on them."""
    assert np.isfinite(logits).all()
    assert logits.std(1).min() > 1e-2, "activations vanish"
    assert np.abs(logits).max() < 1e3, "activations explode"
    assert np.abs(logits[0] - logits[1]).mean() > 0.03 * logits.std(), "the images look the same to the network"
