"""The learning-rate finder: the rate rises exponentially over real training steps, and where the loss falls best is a good one.

Smith, 2017 (https://arxiv.org/abs/1506.01186), section 3.3; the smoothing, the limits and the suggestions are those of fastai 2.
"""

import dataclasses
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.methods import fit, probe
from imgclf.models.network import Network
from imgclf.training import batch_augment, freeze, loop, phases, sharding
from imgclf.training.evaluate import put_ahead
from imgclf.training.state import TrainState, split_model
from imgclf.training.step import class_weights

BETA = 0.98  # of the loss's moving average
DIVERGED = 4.0  # times its lowest value so far: the sweep ends
MIN_STEPS = 20
LOW, HIGH, STEPS = 1e-7, 10.0, 100


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Learning rates, the losses of their steps, and those losses smoothed; float64 [N] each."""

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool  # ended before its last step


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """Learning rates that a sweep speaks for; None where its loss never falls.

    Attributes:
      valley: about the middle of the longest descent; a good peak for training, and what is suggested.
      steepest: where the loss falls fastest, over a tenth of the sweep.
      minimum: a tenth of that of the lowest loss; beyond it training is at its edge.
    """

    valley: float | None
    steepest: float | None
    minimum: float | None


def find(
    config: Config,
    dataset: Dataset,
    model: Network,
    console: Console,
    *,
    low: float = LOW,
    high: float = HIGH,
    steps: int = STEPS,
) -> Sweep:
    """Takes training steps as a run would, but for the learning rate, which is low · (high / low)^(step / (steps − 1)).

    Optimizer, freezing (of the first stage), lr tables, batches and augmentation are the config's; lp_ft starts from its probe. It ends
    when the smoothed loss is four times its lowest value.

    Args:
      config: the whole config, resolved.
      dataset: with its splits.
      model: what training starts from.
      console: for the progress.
      low, high: the range of the learning rate.
      steps: how many at most.

    Raises:
      UserError: for a range or number of steps that shows nothing, and for a probe, which has no training steps on images.
    """
    if steps < MIN_STEPS:
        raise UserError(f"--steps={steps} is too few to see the loss fall; use {MIN_STEPS} or more, {STEPS} by default.")
    if not 0 < low < high:
        raise UserError(f"--low={low:g} and --high={high:g} are no range of learning rates; write 0 < low < high.")
    method = fit.choose(config)
    if method == "probe":
        raise UserError(
            "config.train.method='probe' trains a head on cached features, not on images: use --config.train.method=lp_ft or fit to find a "
            "learning rate for them."
        )
    _, params, batch_stats = split_model(model)
    if method == "lp_ft":
        with tempfile.TemporaryDirectory() as folder:
            probed = probe.prepare(config, dataset, model, console)(Path(folder)).fit
        params, batch_stats = probed.params, probed.batch_stats
    config = config.copy_and_resolve_references()
    config.train.ema = 0.0
    per_epoch = pipeline.steps_per_epoch(dataset, config)
    planned = freeze.plan(config, model, loop.Plan.from_config(config, per_epoch).total, per_epoch)
    first = dataclasses.replace(planned, stages=planned.stages[:1])
    weights = class_weights(config, dataset.class_names, probe.class_counts(dataset))
    mesh = sharding.create_mesh()
    schedule = optax.exponential_decay(low, steps - 1, high / low)
    (phase,) = phases.create(config, model, first, schedule, steps, weights, mesh)
    state = sharding.replicate(phase.first_state(params, batch_stats), mesh)
    return _sweep(config, dataset, state, phase.step, schedule, steps, mesh, console)


def _sweep(
    config: Config,
    dataset: Dataset,
    state: TrainState,
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    schedule: optax.Schedule,
    steps: int,
    mesh: Mesh,
    console: Console,
) -> Sweep:
    losses: list[float] = []
    smoothed: list[float] = []
    average, best, diverged = 0.0, math.inf, False
    columns = TextColumn("learning rates"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("sweep", total=steps, note="compiling the step")
    shard = {"shard": jax.process_index(), "shards": jax.process_count()}
    with pipeline.train_batches(dataset, config, num_steps=steps, **shard) as batches, bar:
        for batch in put_ahead(iter(batches), mesh, config.loader.prefetch):
            state, metrics = train_step(state, batch_augment.inputs(batch))
            loss = float(metrics["train_loss"])
            if not math.isfinite(loss):
                diverged = True
                break
            average = BETA * average + (1 - BETA) * loss
            losses.append(loss)
            smoothed.append(average / (1 - BETA ** len(losses)))
            bar.update(task, advance=1, note=f"{float(schedule(len(losses) - 1)):.1e}  loss {smoothed[-1]:.4f}")
            best = min(best, smoothed[-1])
            if smoothed[-1] > DIVERGED * best:
                diverged = len(losses) < steps
                break
    rates = np.array([float(schedule(step)) for step in range(len(losses))])
    return Sweep(rates, np.array(losses), np.array(smoothed), diverged)


def suggest(found: Sweep, steps: int) -> Suggestion:
    """Reads learning rates off a sweep that was to take `steps` steps; its first tenth and its last five steps don't count."""
    kept = slice(steps // 10, -5)
    rates, losses = found.learning_rates[kept], found.smoothed[kept]
    if len(rates) < 3 or losses.min() >= losses[0]:
        return Suggestion(None, None, None)
    span = max(1, len(rates) // 10)  # of single steps the steepest is one of noise
    slopes = (losses[span:] - losses[:-span]) / np.log(rates[span:] / rates[:-span])
    start, length = _longest_descent(losses)
    return Suggestion(
        valley=float(rates[start + length // 2]),
        steepest=float(rates[slopes.argmin() + span // 2]),
        minimum=float(rates[losses.argmin()]) / 10,
    )


def _longest_descent(losses: np.ndarray) -> tuple[int, int]:
    """Start and length of the valley: the longest falling subsequence, taken, as in fastai, for so many steps up to its end."""
    lengths = np.ones(len(losses), np.int64)
    for i in range(1, len(losses)):
        higher = losses[:i] > losses[i]
        lengths[i] = 1 + lengths[:i][higher].max(initial=0)
    end = int(lengths.argmax())
    return max(0, end - int(lengths[end])), int(lengths[end])
