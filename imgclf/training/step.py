"""The training and evaluation steps: pure functions under `jax.jit`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from imgclf.config import Config
from imgclf.models import forms, placement
from imgclf.models.network import Network
from imgclf.training import batch_augment, mixing, remat, sharding
from imgclf.training.layout import Layout, Rules, kept_for_gradient
from imgclf.training.optimizer import Optimizer
from imgclf.training.scalars import Scalars
from imgclf.training.state import TrainState, Tree, make_apply_fn, overlay, select

Metrics = dict[str, jax.Array]


class TrainStep(Protocol):
    """A compiled training step; see `make_train_step`."""

    def __call__(self, state: TrainState, batch: dict[str, jax.Array], scalars: Scalars, /) -> tuple[TrainState, Metrics]: ...

    def lower(self, *arguments: object) -> jax.stages.Lowered: ...


def mean_over_views(of_view: Callable[[jax.Array], jax.Array], image: jax.Array) -> jax.Array:
    """Applies a function of images [B,H,W,3] to one view of each after another, [B,V,H,W,3], and returns the mean; float32.

    One after another, so that it is compiled once and takes no more memory than one view does.
    """
    return jax.lax.map(of_view, jnp.moveaxis(image, 1, 0)).astype(jnp.float32).mean(0)


def _logits_of_views(model: Network, image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    def pixels(view: jax.Array) -> jax.Array:
        return normalize(view, mean, std)

    if model.head.takes_features:
        return model.logits_of_features(mean_over_views(lambda view: model.features(pixels(view)), image))
    return mean_over_views(lambda view: model(pixels(view)), image)


class EvalStep(Protocol):
    """A compiled evaluation step; see `make_eval_step`."""

    def __call__(self, params: Tree, batch_stats: Tree, batch: dict[str, jax.Array], /) -> dict[str, jax.Array]: ...

    def lower(self, *arguments: object) -> jax.stages.Lowered: ...


def normalize(image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Maps uint8 or float32 [B,H,W,3] to (image / 255 − mean) / std, float32, as one multiplication and one addition."""
    scale = 1.0 / (255.0 * np.asarray(std, np.float32))
    return image.astype(jnp.float32) * scale - np.asarray(mean, np.float32) / np.asarray(std, np.float32)


def cross_entropy(logits: ArrayLike, labels: ArrayLike, smoothing: ArrayLike = 0.0) -> jax.Array:
    """Softmax cross-entropy of logits f32 [B,C] and labels int32 [B], smoothed towards uniform; f32 [B]."""
    targets = jax.nn.one_hot(labels, jnp.shape(logits)[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """All that is built into a compiled training step: it sees no config, so that a field that is not brought here can't be read by it.

    Runs with equal programs share one compilation. What differs between them comes as arguments: numbers as `Scalars`, what is random about
    an image with the batch.

    Attributes:
      graphdef: the model's static definition.
      mean, std: of the normalisation, `config.data.mean` and `.std`.
      optimizer: what makes an update of the gradients.
      trainable: names of the parameters that train, in sorted order; None = all. The others are constants to the gradient, so that what
        comes before the first of them in the network has no backward pass, and the optimizer and `grad_norm` don't see them.
      recomputed: modules whose activations are computed again in the backward pass.
    """

    graphdef: nnx.GraphDef
    mean: tuple[float, ...]
    std: tuple[float, ...]
    optimizer: Optimizer
    trainable: tuple[str, ...] | None
    recomputed: remat.Rows = ()

    def learned(self, params: Tree) -> Tree:
        """Those of the parameters that train."""
        return params if self.trainable is None else select(params, self.trainable)

    def all_params(self, params: Tree, learned: Tree) -> Tree:
        """The parameters with those that train in their places."""
        return learned if self.trainable is None else overlay(params, learned)


@dataclasses.dataclass(frozen=True)
class StateShardings:
    """The sharding of each leaf of a state, hashable, as it is part of the key of a compiled step."""

    leaves: tuple[NamedSharding, ...]
    structure: jax.tree_util.PyTreeDef

    @classmethod
    def of(cls, shardings: TrainState) -> "StateShardings":
        leaves, structure = jax.tree.flatten(shardings)
        return cls(tuple(leaves), structure)

    @property
    def tree(self) -> TrainState:
        return jax.tree.unflatten(self.structure, self.leaves)


@functools.lru_cache(maxsize=16)
def make_train_step(program: StepProgram, layout: Layout, shardings: StateShardings | None = None) -> TrainStep:
    """Returns `train_step(state, batch, scalars) -> (state, metrics)`, compiled, with the state's memory donated.

    Metrics are float32 scalars of the whole (global) batch: `train_loss`, `train_top1`, `grad_norm`. Dropout's key is
    fold_in(key(seed), step), mixing's another such: no other randomness enters, so a step is a pure function of state, batch and scalars.
    `train_top1` of a mixed batch counts the label with the larger share.

    Args:
      program: what the step does; equal ones get the same function, compiled once.
      layout: where parameters lie.
      shardings: of the state where the layout splits any of it; None = all of it is on every device.
    """
    optimizer, mesh = program.optimizer, layout.mesh
    apply = make_apply_fn(program.graphdef, functools.partial(remat.applied, program.recomputed))

    @forms.on_devices_of(mesh)
    @placement.classes_over(mesh)
    def train_step(state: TrainState, batch: dict[str, jax.Array], scalars: Scalars) -> tuple[TrainState, Metrics]:
        key = jax.random.wrap_key_data(jnp.asarray(scalars.dropout_key))
        _, height, width, _ = batch["image"].shape
        mix = mixing.draw(mixing.step_key(key, state.step), (height, width), scalars.mixing) if scalars.mixing else None
        shown = batch_augment.augmented(batch, program.mean, program.std, mix)
        image, label = normalize(shown, program.mean, program.std), batch["label"]
        now = scalars.at(state.step, optimizer.accumulate)
        learned = program.learned(state.params)

        def loss_fn(learned: Tree) -> tuple[jax.Array, tuple[jax.Array, Tree]]:
            params = layout.gathered(program.all_params(state.params, learned))
            logits, batch_stats = apply(params, state.batch_stats, image, train=True, key=jax.random.fold_in(key, state.step))
            smoothing, taught = now.label_smoothing, batch.get("soft_label")
            logits = placement.by_class(logits)
            targets = mixing.targets(label, logits.shape[-1], smoothing, now.class_weights, mix, taught)
            return mixing.loss(logits, placement.by_class(targets)), (logits, batch_stats)

        if layout.gathers:
            loss_fn = jax.checkpoint(
                loss_fn, policy=kept_for_gradient
            )  # so that a compiler may gather whole parameters again instead of keeping them
        (loss, (logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(learned)
        updates, opt_state = optimizer.update(grads, state.opt_state, learned, now)
        params = program.all_params(state.params, optax.apply_updates(learned, updates))
        correct = placement.most_likely(logits) == mixing.heavier(label, mix)
        metrics = {"train_loss": loss, "train_top1": jnp.mean(correct), "grad_norm": optax.tree.norm(grads)}
        return TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state), metrics

    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings.tree if shardings else whole, whole))


def make_eval_step(config: Config, graphdef: nnx.GraphDef, mesh: Mesh, *, features: bool = False) -> EvalStep:
    """Returns `eval_step(params, batch_stats, batch)`, compiled: `logits` f32 [B,C] with `index`, `label`, `mask` of the global batch.

    Of several views of each image, [B,V,H,W,3], it takes the mean: of the features before a head that works on averaged maps, else of
    the logits. The outputs lie as the batch does, each row on its own device: no device waits for another. The same model and preprocessing
    get the same function. With `features`, there are also these, of the same pass: the pooled maps f32 [B,D].
    """
    make = _eval_step_with_features if features else _eval_step
    return make(graphdef, tuple(config.data.mean), tuple(config.data.std), mesh, Rules.of(config.mesh))


@functools.lru_cache(maxsize=16)
def _eval_step(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...], mesh: Mesh, rules: Rules) -> EvalStep:
    apply = make_apply_fn(graphdef)

    @forms.on_devices_of(mesh)
    @placement.classes_over(mesh)
    def eval_step(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> dict[str, Any]:
        params = Layout.create(rules, params, mesh).gathered(params)
        if batch["image"].ndim == 4:
            logits, _ = apply(params, batch_stats, normalize(batch["image"], mean, std))
        else:
            logits = _logits_of_views(nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats)), batch["image"], mean, std)
        return {"logits": logits, "index": batch["index"], "label": batch["label"], "mask": batch["mask"]}

    return jax.jit(eval_step, out_shardings=sharding.batch_sharding(mesh))


@functools.lru_cache(maxsize=16)
def _eval_step_with_features(graphdef: nnx.GraphDef, mean: tuple[float, ...], std: tuple[float, ...], mesh: Mesh, rules: Rules) -> EvalStep:
    @forms.on_devices_of(mesh)
    @placement.classes_over(mesh)
    def eval_step(params: Tree, batch_stats: Tree, batch: dict[str, jax.Array]) -> dict[str, Any]:
        params = Layout.create(rules, params, mesh).gathered(params)
        model, image = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats)), batch["image"]

        def both(view: jax.Array) -> jax.Array:
            return jnp.concatenate(model.features_and_logits(normalize(view, mean, std)), axis=1)

        if image.ndim == 5 and model.head.takes_features:
            features = mean_over_views(lambda view: model.features(normalize(view, mean, std)), image)
            logits = model.logits_of_features(features)
        else:
            outputs = both(image) if image.ndim == 4 else mean_over_views(both, image)
            features, logits = jnp.split(outputs, [model.backbone.features], axis=1)
        return {"features": features, "logits": logits, "index": batch["index"], "label": batch["label"], "mask": batch["mask"]}

    return jax.jit(eval_step, out_shardings=sharding.batch_sharding(mesh))
