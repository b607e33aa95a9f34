"""The learning-rate finder's driver: takes training steps as a run would, at rates that rise from step to step."""

import contextlib
import dataclasses
import math
import tempfile
from pathlib import Path

import optax

from imgclf import progress
from imgclf.data import pipeline
from imgclf.errors import UserError
from imgclf.methods.base import Task
from imgclf.methods.probe import Probe
from imgclf.training import batch_augment, freeze, phases, sharding
from imgclf.training.class_weights import class_counts, class_weights
from imgclf.training.evaluate import put_ahead
from imgclf.training.lr_range import MIN_STEPS, LossCurve, Sweep
from imgclf.training.phases import Phase
from imgclf.training.plan import TrainingPlan
from imgclf.training.state import TrainState, split_model

LOW, HIGH, STEPS = 1e-7, 10.0, 100


def find(task: Task, *, low: float = LOW, high: float = HIGH, steps: int = STEPS) -> Sweep:
    """Takes training steps as a run would, but for the learning rate, which is low · (high / low)^(step / (steps − 1)).

    Optimizer, freezing (of the first stage), lr tables, batches and augmentation are the config's; lp_ft starts from its probe. It ends
    when the smoothed loss is four times its lowest value (`LossCurve.has_diverged`).

    Args:
      task: what would be trained.
      low, high: the range of the learning rate.
      steps: how many at most.

    Raises:
      UserError: for a range or number of steps that shows nothing, and for a probe, which has no training steps on images.
    """
    check(low, high, steps)
    if task.config.train.method == "probe":
        raise UserError(
            "config.train.method='probe' trains a head on cached features, not on images: use --config.train.method=lp_ft or fit to find a "
            "learning rate for them."
        )
    _, params, batch_stats = split_model(task.model)
    if probed := task.config.train.method == "lp_ft":
        with tempfile.TemporaryDirectory() as folder:
            found = Probe.check(task).train(Path(folder))
        params, batch_stats = found.params, found.batch_stats
    phase = _phase(task, optax.exponential_decay(low, steps - 1, high / low), steps)
    state = phase.first_state(params, batch_stats)
    curve = _swept(task, state, phase, steps)
    return curve.sweep([phase.learning_rate(step) for step in range(len(curve.losses))], steps, probed=probed)


def check(low: float, high: float, steps: int) -> None:
    """Raises a UserError for a range or a number of steps that shows nothing."""
    if steps < MIN_STEPS:
        raise UserError(f"--steps={steps} is too few to see the loss fall; use {MIN_STEPS} or more, {STEPS} by default.")
    if not 0 < low < high:
        raise UserError(f"--low={low:g} and --high={high:g} are no range of learning rates; write 0 < low < high.")


def _phase(task: Task, schedule: optax.Schedule, steps: int) -> Phase:
    """The first phase of the training that would be, with rates of its own and without an average of the parameters."""
    config, dataset = task.config.copy_and_resolve_references(), task.dataset
    config.train.ema = 0.0
    per_epoch = pipeline.steps_per_epoch(dataset, config)
    freezing = freeze.create_freezing(config, task.model, TrainingPlan.create(config, per_epoch).total, per_epoch)
    weights = class_weights(config, dataset.class_names, class_counts(dataset))
    first = dataclasses.replace(freezing, stages=freezing.stages[:1])
    (phase,) = phases.create(config, task.model, first, schedule, steps, weights, task.mesh)
    return phase


def _swept(task: Task, state: TrainState, phase: Phase, steps: int) -> LossCurve:
    """Takes the steps, until the loss diverges or is not finite."""
    curve, config = LossCurve(), task.config
    own = sharding.own_places(task.mesh, config.loader.batch_size)
    with contextlib.ExitStack() as opened:
        batches = opened.enter_context(pipeline.train_batches(task.dataset, config, num_steps=steps, own=own))
        bar = opened.enter_context(progress.bar(task.console, "{task.fields[note]}"))
        shown = bar.add_task("learning rates", total=steps, note="compiling the step")
        for batch in put_ahead(iter(batches), task.mesh, config.loader.prefetch):
            state, metrics = phase.step(state, batch_augment.inputs(batch))
            loss = float(metrics["train_loss"])
            if not math.isfinite(loss):
                break
            curve.add(loss)
            rate = phase.learning_rate(len(curve.losses) - 1)
            bar.update(shown, advance=1, note=f"{rate:.1e}  loss {curve.smoothed[-1]:.4f}")
            if curve.has_diverged():
                break
    return curve
