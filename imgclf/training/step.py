"""The training and evaluation steps: pure functions under `jax.jit`."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from imgclf.config import parse_arguments
from imgclf.errors import UserError, nearest
from imgclf.training.state import ApplyFn, TrainState, Tree, overlay, select

Metrics = dict[str, jax.Array]


def normalize(image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Maps uint8 [B,H,W,3] to (image / 255 − mean) / std, float32, as one multiplication and one addition."""
    scale = 1.0 / (255.0 * np.asarray(std, np.float32))
    return image.astype(jnp.float32) * scale - np.asarray(mean, np.float32) / np.asarray(std, np.float32)


def class_weights(config: ConfigDict, class_names: tuple[str, ...], counts: np.ndarray) -> np.ndarray | None:
    """Returns the loss's weight of each class, float32 [C], or None for equal ones.

    `balanced` is scikit-learn's n / (C · n_c); `turicreate` is TuriCreate's (1 / n_c) / Σ(1 / n_i); explicit ones are
    written `"cat=1, dog=2.5"`, classes left out weigh 1. The loss is the weighted mean, so that only ratios count.

    Raises:
      UserError: for an unknown rule or class.
    """
    rule = config.train.class_weights
    counts = np.maximum(counts.astype(np.float64), 1)
    if rule == "none":
        return None
    if rule == "balanced":
        return (counts.sum() / (len(counts) * counts)).astype(np.float32)
    if rule == "turicreate":
        return (1 / counts / np.sum(1 / counts)).astype(np.float32)
    weights = np.ones(len(class_names), np.float32)
    if "=" not in rule:
        valid = ("none", "balanced", "turicreate")
        raise UserError(f"config.train.class_weights={rule!r} is no rule; {nearest(rule, valid)} Or give weights: 'cat=1, dog=2.5'.")
    for item in rule.split(","):
        name, _, value = item.rpartition("=")
        name = name.strip()
        if name not in class_names:
            raise UserError(f"config.train.class_weights={rule!r} names no class {name!r}; {nearest(name, class_names)}")
        weight = parse_arguments(f"w={value}", "train.class_weights")["w"]
        if not isinstance(weight, int | float) or weight < 0:
            raise UserError(f"config.train.class_weights={rule!r}: the weight of {name!r} must be a number, 0 or more.")
        weights[class_names.index(name)] = weight
    return weights


def cross_entropy(logits: ArrayLike, labels: ArrayLike, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of logits f32 [B,C] and labels int32 [B], smoothed towards uniform; f32 [B]."""
    targets = jax.nn.one_hot(labels, jnp.shape(logits)[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing) if smoothing else targets)


def make_train_step(
    config: ConfigDict,
    apply: ApplyFn,
    tx: optax.GradientTransformation,
    weights: np.ndarray | None,
    mesh: Mesh,
    trainable: Collection[str] | None = None,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Returns `train_step(state, batch) -> (state, metrics)`, compiled, with the state's memory donated.

    Metrics are float32 scalars of the whole (global) batch: `train_loss`, `train_top1`, `grad_norm`. Dropout's key is
    fold_in(key(seed), step): no other randomness enters, so a step is a pure function of state and batch.

    `trainable` names the parameters that train; None = all. The others are constants to the gradient, so that what comes before the
    first of them in the network has no backward pass, and `tx` and `grad_norm` don't see them.
    """
    mean, std, smoothing = config.data.mean, config.data.std, config.train.label_smoothing
    dropout_key = jax.random.key(config.seed)

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        image, label = normalize(batch["image"], mean, std), batch["label"]
        learned = state.params if trainable is None else select(state.params, trainable)

        def loss_fn(learned: Tree):
            params = learned if trainable is None else overlay(state.params, learned)
            key = jax.random.fold_in(dropout_key, state.step)
            logits, batch_stats = apply(params, state.batch_stats, image, train=True, key=key)
            losses = cross_entropy(logits, label, smoothing)
            if weights is None:
                loss = losses.mean()
            else:
                weight = jnp.asarray(weights)[label]
                loss = jnp.sum(weight * losses) / jnp.sum(weight)
            return loss, (logits, batch_stats)

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(learned)
        updates, opt_state = tx.update(grads, state.opt_state, learned)
        learned = optax.apply_updates(learned, updates)
        params = learned if trainable is None else overlay(state.params, learned)
        metrics = {"train_loss": loss, "train_top1": jnp.mean(jnp.argmax(logits, -1) == label), "grad_norm": optax.tree.norm(grads)}
        return TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), metrics

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated)


def evaluated_logits(config: ConfigDict, apply: ApplyFn, params: Tree, batch_stats: Tree, image: jax.Array) -> jax.Array:
    """Logits f32 [B,C] of uint8 images [B,H,W,3] as `config.eval` wants them: with `flip`, the mean over image and mirror image."""
    pixels = normalize(image, config.data.mean, config.data.std)
    logits, _ = apply(params, batch_stats, pixels)
    if config.eval.flip:
        mirrored, _ = apply(params, batch_stats, pixels[:, :, ::-1])
        logits = (logits + mirrored) / 2
    return logits


def make_eval_step(config: ConfigDict, apply: ApplyFn, mesh: Mesh) -> Callable[[Tree, Tree, dict[str, jax.Array]], dict[str, jax.Array]]:
    """Returns `eval_step(params, batch_stats, batch)`, compiled: `logits` f32 [B,C] with `index`, `label`, `mask` of the global batch.

    The outputs are on every host, so that each can write or average them.
    """

    def eval_step(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> dict[str, Any]:
        logits = evaluated_logits(config, apply, params, batch_stats, batch["image"])
        return {"logits": logits, "index": batch["index"], "label": batch["label"], "mask": batch["mask"]}

    return jax.jit(eval_step, out_shardings=NamedSharding(mesh, PartitionSpec()))
