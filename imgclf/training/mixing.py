"""MixUp and CutMix with their soft labels, label smoothing and class weights, as one unit.

A batch is mixed with itself in reverse, by one share and one box for all of it, as timm's `Mixup` does in batch mode. MixUp: Zhang et al.,
ICLR 2018. CutMix: Yun et al., ICCV 2019, its share corrected for what the image's edges cut off the box. All is a pure function of
(seed, step) and the batch, so that a run resumes exactly.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from imgclf.config import Config

_STREAM = 0x6D6978  # apart from dropout's keys, which are fold_in(key(seed), step)


class Mix(NamedTuple):
    """How a batch is mixed.

    Attributes:
      share: float32 [], of each image's own label.
      weight: float32 [], of its own pixels outside the box: the share in MixUp, 1 in CutMix.
      box: int32 [4], top, left, bottom and right (the last two not included) of the part that is the partner's; empty in MixUp.
    """

    share: jax.Array
    weight: jax.Array
    box: jax.Array


def parameters(config: Config) -> dict[str, np.float32] | None:
    """What `draw` takes, from `config.augment`, float32; None where nothing is mixed."""
    augment = config.augment
    if not (augment.mixup or augment.cutmix):
        return None
    names = ("mixup", "cutmix", "mix_switch", "mix_probability")
    return {name: np.float32(augment[name]) for name in names}


def step_key(key: jax.Array, step: ArrayLike) -> jax.Array:
    """The key of the mixing of a training step, counted from 0; `key` is `jax.random.key(config.seed)`."""
    return jax.random.fold_in(jax.random.fold_in(key, _STREAM), step)


def draw(key: jax.Array, size: tuple[int, int], parameters: Mapping[str, ArrayLike]) -> Mix:
    """Draws how a batch of images of (height, width) pixels is mixed.

    Args:
      key: see `step_key`.
      size: of the images.
      parameters: `mixup` and `cutmix`, the alphas, at least one above 0; `mix_switch`; `mix_probability`. They may be traced.
    """
    height, width = size
    mixup, cutmix = parameters["mixup"], parameters["cutmix"]
    applied_key, switch_key, share_key, y_key, x_key = jax.random.split(key, 5)
    both = (jnp.asarray(mixup) > 0) & (jnp.asarray(cutmix) > 0)
    is_cutmix = jnp.where(both, jax.random.uniform(switch_key) < parameters["mix_switch"], jnp.asarray(cutmix) > 0)
    alpha = jnp.where(is_cutmix, cutmix, mixup).astype(jnp.float32)
    share = jax.random.beta(share_key, alpha, alpha)
    applied = jax.random.uniform(applied_key) < parameters["mix_probability"]
    y, x = jax.random.randint(y_key, (), 0, height), jax.random.randint(x_key, (), 0, width)
    box = jnp.where(is_cutmix & applied, cut_box(share, y, x, size), 0)
    weight = jnp.where(is_cutmix | ~applied, 1.0, share)
    return Mix(jnp.where(is_cutmix, kept_share(box, size), weight), weight, box)


def cut_box(share: ArrayLike, y: ArrayLike, x: ArrayLike, size: tuple[int, int]) -> jax.Array:
    """CutMix's box around (y, x), of 1 - share of the area before it is cut off at the edges: int32 [4]."""
    edge = jnp.sqrt(1 - jnp.asarray(share))
    ends = []
    for centre, pixels in ((y, size[0]), (x, size[1])):
        side = (edge * pixels).astype(jnp.int32)
        ends.append((jnp.clip(centre - side // 2, 0, pixels), jnp.clip(centre + (side + 1) // 2, 0, pixels)))
    (top, bottom), (left, right) = ends
    return jnp.stack([top, left, bottom, right]).astype(jnp.int32)


def kept_share(box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The share of the area outside a box, float32 []."""
    top, left, bottom, right = box
    return 1 - ((bottom - top) * (right - left)).astype(jnp.float32) / (size[0] * size[1])


def inside(box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Whether each pixel of (height, width) lies in the boxes int32 [..., 4]: bool [..., H, W]."""
    top, left, bottom, right = (box[..., side, None, None] for side in range(4))
    y, x = jnp.arange(size[0])[:, None], jnp.arange(size[1])
    return (top <= y) & (y < bottom) & (left <= x) & (x < right)


def mix_images(image: jax.Array, mix: Mix) -> jax.Array:
    """Mixes float32 [B,H,W,3], the whole batch over all hosts, with its reverse."""
    partner = image[::-1]
    blended = mix.weight * image + (1 - mix.weight) * partner
    _, height, width, _ = image.shape
    return jnp.where(inside(mix.box, (height, width))[..., None], partner, blended)


def targets(
    label: jax.Array,
    classes: int,
    smoothing: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    mix: Mix | None = None,
    taught: jax.Array | None = None,
) -> jax.Array:
    """Returns the soft labels that `loss` takes.

    Each is smoothed towards uniform, joined with what a teacher gives of it, multiplied by its class's weight, and only then mixed with
    the partner's: an example weighs what its classes weigh, by their shares.

    Args:
      label: int32 [B].
      classes: C.
      smoothing: `config.train.label_smoothing`.
      weights: float32 [C] of the classes; None = 1.
      mix: None = unmixed.
      taught: float32 [B,C], the teacher's part of each label, whose rows add up to its share; the rest is the label's own. None = all is.

    Returns:
      float32 [B,C], whose rows add up to the examples' weights.
    """
    own = optax.smooth_labels(jax.nn.one_hot(label, classes), smoothing)
    if taught is not None:
        own = (1 - taught.sum(-1, keepdims=True)) * own + taught
    if weights is not None:
        own = own * jnp.asarray(weights)[label][:, None]
    return own if mix is None else mix.share * own + (1 - mix.share) * own[::-1]


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean softmax cross-entropy of logits float32 [B,C], weighted by the sums of the targets' rows; float32 []."""
    return jnp.sum(optax.softmax_cross_entropy(logits, targets)) / jnp.sum(targets)


def heavier(label: jax.Array, mix: Mix | None) -> jax.Array:
    """The label with the larger share, int32 [B]: what top-1 counts in training."""
    return label if mix is None else jnp.where(mix.share >= 0.5, label, label[::-1])
