"""The training and evaluation steps: pure functions under `jax.jit`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from imgclf import config as config_lib
from imgclf.config import Config, parse_arguments
from imgclf.errors import UserError, nearest
from imgclf.training import batch_augment, mixing, optimizer
from imgclf.training import scalars as scalars_lib
from imgclf.training.scalars import Scalars
from imgclf.training.state import TrainState, Tree, make_apply_fn, overlay, select

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, dict[str, jax.Array], Scalars], tuple[TrainState, Metrics]]
EvalStep = Callable[[Tree, Tree, dict[str, jax.Array]], dict[str, jax.Array]]


def normalize(image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Maps uint8 or float32 [B,H,W,3] to (image / 255 − mean) / std, float32, as one multiplication and one addition."""
    scale = 1.0 / (255.0 * np.asarray(std, np.float32))
    return image.astype(jnp.float32) * scale - np.asarray(mean, np.float32) / np.asarray(std, np.float32)


def class_weights(config: Config, class_names: tuple[str, ...], counts: np.ndarray) -> np.ndarray | None:
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


def cross_entropy(logits: ArrayLike, labels: ArrayLike, smoothing: ArrayLike = 0.0) -> jax.Array:
    """Softmax cross-entropy of logits f32 [B,C] and labels int32 [B], smoothed towards uniform; f32 [B]."""
    targets = jax.nn.one_hot(labels, jnp.shape(logits)[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def make_train_step(
    config: Config, graphdef: nnx.GraphDef, mesh: Mesh, since: Mapping[str, int] | None = None, depths: Mapping[str, int] | None = None
) -> TrainStep:
    """Returns `train_step(state, batch, scalars) -> (state, metrics)`, compiled, with the state's memory donated.

    Metrics are float32 scalars of the whole (global) batch: `train_loss`, `train_top1`, `grad_norm`. Dropout's key is
    fold_in(key(seed), step), mixing's another such: no other randomness enters, so a step is a pure function of state, batch and scalars.
    `train_top1` of a mixed batch counts the label with the larger share.

    Runs of one process whose steps differ in nothing but scalars get the same function, compiled once.

    Args:
      config: the whole config.
      graphdef: the model's static definition.
      mesh: of all devices.
      since: names of the parameters that train, and since when (`optim.create_optimizer`); None = all. The others are constants to the
        gradient, so that what comes before the first of them in the network has no backward pass, and the optimizer and `grad_norm`
        don't see them.
      depths: of the backbone's units where there is a layer_decay.
    """

    def items(names: Mapping[str, int] | None) -> _Items:
        return None if names is None else tuple(sorted(names.items()))

    return _train_step(config_lib.to_json(scalars_lib.structure(config)), graphdef, mesh, items(since), items(depths))


_Items = tuple[tuple[str, int], ...] | None  # of a dict, hashable


@functools.lru_cache(maxsize=16)
def _train_step(structure: str, graphdef: nnx.GraphDef, mesh: Mesh, since: _Items, depths: _Items) -> TrainStep:
    config, apply = config_lib.from_json(structure), make_apply_fn(graphdef)
    mean, std = config.data.mean, config.data.std
    trainable = None if since is None else frozenset(name for name, _ in since)
    options = {"since": None if since is None else dict(since), "depths": None if depths is None else dict(depths)}

    def train_step(state: TrainState, batch: dict[str, jax.Array], scalars: Scalars) -> tuple[TrainState, Metrics]:
        key = jax.random.wrap_key_data(scalars.dropout_key)
        mix = mixing.draw(mixing.step_key(key, state.step), batch["image"].shape[1:3], scalars.mixing) if scalars.mixing else None
        image, label = normalize(batch_augment.augmented(batch, mean, std, mix), mean, std), batch["label"]
        now = scalars.at(state.step, config.train.accumulate)
        tx = optimizer.create_optimizer(config, optax.constant_schedule(0.0), state.params, scalars=now, **options)
        learned = state.params if trainable is None else select(state.params, trainable)

        def loss_fn(learned: Tree):
            params = learned if trainable is None else overlay(state.params, learned)
            logits, batch_stats = apply(params, state.batch_stats, image, train=True, key=jax.random.fold_in(key, state.step))
            targets = mixing.targets(label, logits.shape[-1], now.label_smoothing, now.class_weights, mix)
            return mixing.loss(logits, targets), (logits, batch_stats)

        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(learned)
        updates, opt_state = tx.update(grads, state.opt_state, learned)
        learned = optax.apply_updates(learned, updates)
        params = learned if trainable is None else overlay(state.params, learned)
        correct = jnp.argmax(logits, -1) == mixing.heavier(label, mix)
        metrics = {"train_loss": loss, "train_top1": jnp.mean(correct), "grad_norm": optax.tree.norm(grads)}
        return TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), metrics

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated)


def make_eval_step(config: Config, graphdef: nnx.GraphDef, mesh: Mesh) -> EvalStep:
    """Returns `eval_step(params, batch_stats, batch)`, compiled: `logits` f32 [B,C] with `index`, `label`, `mask` of the global batch.

    The outputs are on every host, so that each can write or average them. The same model and preprocessing get the same function.
    """
    return _eval_step(graphdef, tuple(config.data.mean), tuple(config.data.std), config.eval.flip, mesh)


@functools.lru_cache(maxsize=16)
def _eval_step(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...], flip: bool, mesh: Mesh) -> EvalStep:
    apply = make_apply_fn(graphdef)

    def eval_step(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> dict[str, Any]:
        pixels = normalize(batch["image"], mean, std)
        logits, _ = apply(params, batch_stats, pixels)
        if flip:
            mirrored, _ = apply(params, batch_stats, pixels[:, :, ::-1])
            logits = (logits + mirrored) / 2
        return {"logits": logits, "index": batch["index"], "label": batch["label"], "mask": batch["mask"]}

    return jax.jit(eval_step, out_shardings=NamedSharding(mesh, PartitionSpec()))
