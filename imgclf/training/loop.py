"""The training loop. Its order of operations:

1. open the run's files, restore the newest sound checkpoint, if any, and forget the metrics written after it; then, again and again:
2. on evaluation steps, and before the first step of a trained model: evaluate the (averaged) parameters on val, note whether the model is
   the best, and keep it if so
3. at the end of the plan, or when nothing has improved for `patience` evaluations: keep the last model if none has been kept
4. on checkpoint steps, at the end, or when asked to stop: write the checkpoint, then drop kept models that it no longer names; at the end,
   or when asked to stop, leave the loop
5. enter the next phase if one begins; take a batch (made, and put on the device, while earlier steps run) and make a step with it
6. on log steps: read the metrics back and write them; a loss that is not finite ends the run

and at last, if one is asked for, make a soup of the best models; then read the kept model. Whatever was opened is closed on every way out.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from imgclf import formatting
from imgclf import progress as progress_bars
from imgclf.config import Config
from imgclf.data import pipeline
from imgclf.errors import UserError
from imgclf.remote.retrying import Unreachable
from imgclf.training import batch_augment, sharding
from imgclf.training.best import BestModels
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.clock import TrainingClock
from imgclf.training.evaluate import Evaluator, put_ahead
from imgclf.training.metrics_log import MetricsLog, MetricsWindow, NotFinite
from imgclf.training.optimizer import evaluated_params
from imgclf.training.phases import at
from imgclf.training.plan import TrainingPlan
from imgclf.training.setup import TrainingSetup
from imgclf.training.state import TrainState, Tree
from imgclf.training.stopping import Interrupted, StoppedWhileEvaluating, StopRequest
from imgclf.training.trained_model import TrainedModel, TrainProgress
from imgclf.training.work import WorkCounter

OnEvaluation = Callable[[int, dict[str, float]], None]  # the evaluation's number, and val_loss and val_top1


def fit(
    setup: TrainingSetup,
    start: tuple[Tree, Tree],
    run: Path,
    console: Console,
    *,
    trained: bool = False,
    on_evaluation: OnEvaluation | None = None,
    deadline: float | None = None,
) -> TrainedModel:
    """Trains through all phases from the newest checkpoint in `run`, or else from `start`, to the end of the plan.

    Args:
      setup: what is trained, on what and for how long.
      start: parameters and statistics of the model that training starts from.
      run: the run's folder.
      console: for the progress.
      trained: whether the start is a model already (LP-FT's probe): it is evaluated too, and kept if nothing after it is better.
      on_evaluation: told of every evaluation on val; what it raises ends the training.
      deadline: by `time.monotonic`, when training is to stop; None = never.

    Raises:
      Interrupted: after SIGTERM, Ctrl-C or the deadline, once the state is saved.
      UserError: for a loss that is not finite, a full disk, or checkpoints that are all damaged.
    """
    config, plan, phases = setup.config, setup.plan, setup.phases
    with contextlib.ExitStack() as opened:
        checkpoints = opened.enter_context(contextlib.closing(Checkpoints(run / "checkpoints")))
        opened.enter_context(_finite_or_told(config, checkpoints))
        opened.enter_context(_resume_point_told(checkpoints))
        state, progress = _restored_or(start, setup, checkpoints, console)
        first_step = step = int(state.step)
        log = opened.enter_context(contextlib.closing(MetricsLog(run, step, plan.per_epoch)))
        batches = opened.enter_context(contextlib.closing(_train_batches(setup, step)))
        bar = opened.enter_context(progress_bars.bar(console, "{task.fields[note]}", rate="steps"))
        task = bar.add_task("training, in steps", total=plan.total, completed=step, note="compiling the step")
        stop = opened.enter_context(StopRequest(deadline))
        window, work, phase = MetricsWindow(), WorkCounter(progress), at(phases, step)
        clock = TrainingClock(progress.seconds, config.loader.batch_size, config.train.checkpoint_seconds)
        opened.callback(clock.close)
        best = BestModels(config, plan, setup.dataset.class_names, setup.has_val, checkpoints, progress)
        keeper = _Keeper(checkpoints, progress, best, window, clock, log)

        while True:
            if (plan.evaluates_at(step) if step else trained) and setup.has_val and step != progress.evaluated_step:
                with clock.paused(), contextlib.suppress(StoppedWhileEvaluating):
                    window.read()
                    params = evaluated_params(state.params, state.opt_state)
                    values = setup.evaluator.val_metrics(params, state.batch_stats, stop.check_while_evaluating)
                    log.write(step, values)
                    improved = best.add(step, values, params, state.batch_stats)
                    _tell_evaluation(plan, step, values, improved, console, on_evaluation)

            signum = stop.signum(step, checkpoints)
            ends = step >= plan.total or progress.stopped_early
            if ends and not signum and not progress.kept:
                best.keep_last(step, evaluated_params(state.params, state.opt_state), state.batch_stats)

            if ends or signum or plan.saves_at(step) or clock.save_is_late(all_ask=plan.logs_at(step)):
                keeper.keep(state)
            if signum:
                raise Interrupted(signum, step)
            if ends:
                break

            with keeper.kept_if_unreachable(state), clock.asking_for_batch():
                batch = next(batches)
            if step == phases[phase].stop:
                phase += 1
                state = phases[phase].begin(state)
                clock.start_up()
            state, metrics = phases[phase].step(state, batch)
            step += 1
            work.stepped(phases[phase], state, batch)
            window.add(step, metrics)
            clock.stepped(metrics)
            bar.update(task, completed=step, **_note_after(step - first_step))

            if plan.logs_at(step):
                means = window.means() | {"learning_rate": phases[phase].learning_rate(step - 1)} | clock.rate()
                log.write(step, means)
                bar.update(task, note=_note(means))

        if step > first_step:
            console.print(f"Trained {formatting.count(step - first_step, 'step')} in {clock.seconds_now:.1f} s.", highlight=False)
            progress.seconds = clock.seconds
        if progress.ranked:
            with _interrupting(step):
                best.keep_soup(step, setup.evaluator, stop.check_while_evaluating)
    return _kept_model(setup, run, progress, step, console)


@dataclasses.dataclass(frozen=True)
class _Keeper:
    """Saves the state of the training."""

    checkpoints: Checkpoints
    progress: TrainProgress
    best: BestModels
    window: MetricsWindow
    clock: TrainingClock
    log: MetricsLog

    def keep(self, state: TrainState) -> None:
        with self.clock.paused():
            self.window.read()  # so that no state whose loss is not finite is ever saved
            self.log.flush()  # what stands before a checkpoint is not written again
            self.checkpoints.save(state, dataclasses.asdict(dataclasses.replace(self.progress, seconds=self.clock.seconds)))
            self.best.drop_others()
            self.clock.saved()

    @contextlib.contextmanager
    def kept_if_unreachable(self, state: TrainState) -> Iterator[None]:
        """Saves the state where the block fails as images at a URL can't be had any more; several processes save together only."""
        try:
            yield
        except Unreachable:
            if jax.process_count() == 1:
                self.keep(state)
            raise


def _restored_or(
    start: tuple[Tree, Tree], setup: TrainingSetup, checkpoints: Checkpoints, console: Console
) -> tuple[TrainState, TrainProgress]:
    """The state and the progress of the newest sound checkpoint, or those before the first step."""
    phases = setup.phases
    first = phases[0].first_state(*start)
    restored = checkpoints.restore(lambda step: phases[at(phases, step)].like(first), console)
    if restored is None:
        return first, TrainProgress(flops=0)
    console.print(f"Continuing from step {int(restored.state.step)} of {setup.plan.total}.", highlight=False)
    return restored.state, TrainProgress.of(restored.progress)


def _train_batches(setup: TrainingSetup, start_step: int) -> Generator[dict[str, jax.Array]]:
    """What the steps from this one on are given, put on the devices ahead; threads and workers start when the first one is asked for."""
    config = setup.config
    span = {"start_step": start_step, "num_steps": setup.plan.total - start_step}
    own = sharding.own_places(setup.mesh, config.loader.batch_size)
    with pipeline.train_batches(setup.dataset, config, **span, own=own) as batches:
        for batch in put_ahead(_with_soft_targets(batches, setup.soft_targets), setup.mesh, config.loader.prefetch):
            yield batch_augment.inputs(batch)


def _with_soft_targets(batches: Iterable[pipeline.Batch], targets: np.ndarray | None) -> Iterator[pipeline.Batch]:
    """Adds to each batch what a teacher says of its images; without a teacher the batches stay as they are."""
    for batch in batches:
        yield batch if targets is None else batch | {"soft_label": targets[batch["index"]]}


def _tell_evaluation(
    plan: TrainingPlan, step: int, values: dict[str, float], improved: bool, console: Console, on_evaluation: OnEvaluation | None
) -> None:
    told = f"epoch {plan.epoch(step):7.2f}  step {step:6d}  val loss {values['val_loss']:.4f}  val top-1 {values['val_top1']:7.2%}"
    console.print(told + ("  best so far" if improved else ""), highlight=False)
    if on_evaluation is not None:
        on_evaluation(plan.evaluation_number(step), values)


def _note_after(steps: int) -> dict[str, Any]:
    """After the first step nothing is compiled any more, and the loss is read at the next log line."""
    return {"note": ""} if steps == 1 else {}


def _note(metrics: dict[str, float]) -> str:
    """What the progress bar shows of the latest log line."""
    rate = ""
    if "images_per_second" in metrics:
        rate = f"  {metrics['images_per_second']:,.0f} images/s, {metrics['data_wait']:.0%} waiting for data"
    return f"loss {metrics['train_loss']:.4f}{rate}"


@contextlib.contextmanager
def _interrupting(step: int) -> Iterator[None]:
    """An evaluation that is given up in this block ends the training: there is nothing left to save."""
    try:
        yield
    except StoppedWhileEvaluating as stopped:
        raise Interrupted(stopped.signum, step) from None


@contextlib.contextmanager
def _finite_or_told(config: Config, checkpoints: Checkpoints) -> Iterator[None]:
    """Turns a loss that is not finite into the user's error, with the checkpoint that is sound."""
    try:
        yield
    except NotFinite as error:
        bad, saved = error.steps, checkpoints.steps()
        shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        sound = f"the checkpoint of step {saved[-1]} is sound" if saved else "no checkpoint was written"
        raise UserError(
            f"The training loss is not finite at step{'s' if len(bad) > 1 else ''} {shown}; {sound}. Start again, in another --workdir, "
            f"with a lower config.optimizer.learning_rate (now {config.optimizer.learning_rate}) or with config.train.clip_norm=1."
        ) from None


@contextlib.contextmanager
def _resume_point_told(checkpoints: Checkpoints) -> Iterator[None]:
    """Where images at a URL can't be had any more, says from where the same command continues."""
    try:
        yield
    except Unreachable as error:
        saved = checkpoints.steps()
        point = f"the state of step {saved[-1]} is saved, and the same command continues there" if saved else "no state had been saved yet"
        raise UserError(f"{str(error).rstrip('.')}; {point}.") from error


@dataclasses.dataclass(frozen=True)
class ImageLogits:
    """`TrainedModel.logits_of` of a model that is run over the images."""

    evaluator: Evaluator
    params: Tree
    batch_stats: Tree
    console: Console

    def __call__(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        total = int((self.evaluator.dataset.table["split"] == split).sum())
        with progress_bars.bar(self.console) as bar:
            task = bar.add_task(f"evaluating {split}", total=total)
            params, batch_stats = self.evaluator.place(self.params, self.batch_stats)
            return self.evaluator.logits(params, batch_stats, split, lambda examples: bar.advance(task, examples))

    def blocks(self, split: str, only: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`TrainedModel.blocks_of`."""
        evaluator = self.evaluator if only is None else self.evaluator.only(split, only)
        total = int((evaluator.dataset.table["split"] == split).sum())
        with progress_bars.bar(self.console) as bar:
            task = bar.add_task(f"evaluating {split}", total=total)
            params, batch_stats = evaluator.place(self.params, self.batch_stats)
            yield from evaluator.blocks(params, batch_stats, split, lambda examples: bar.advance(task, examples))


def _kept_model(setup: TrainingSetup, run: Path, progress: TrainProgress, steps: int, console: Console) -> TrainedModel:
    model, about = load_model(run / "checkpoints" / progress.kept)
    params, batch_stats = model["params"], model["batch_stats"]
    logits_of = ImageLogits(setup.evaluator, params, batch_stats, console)
    return TrainedModel(params, batch_stats, about, progress, steps, logits_of, blocks_of=logits_of.blocks)
