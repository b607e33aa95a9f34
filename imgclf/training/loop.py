"""The training loop. Its order of operations:

1. restore the newest sound checkpoint, if any; forget the metrics written after it
2. for each step: enter the next phase if one begins; take a batch (made, and put on the device, while earlier steps run) → its step
3. on log steps: read the metrics back and write them; a loss that is not finite ends the run
4. on evaluation steps, and before the first of a trained model: evaluate the (averaged) parameters on val; keep the model if it is best
5. on checkpoint steps, or when asked to stop: write the checkpoint, then drop kept models that it no longer names
6. end early if nothing has improved for `patience` evaluations
7. at the end: write the last checkpoint, make a soup of the best models if one is asked for, and read the kept model
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imgclf.config import Config, durations
from imgclf.data import pipeline
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.training import batch_augment, sharding, soup
from imgclf.training.checkpoint import Checkpoints, load_model
from imgclf.training.evaluate import evaluate_split, put_ahead
from imgclf.training.metrics_log import MetricsLog, MetricsWindow, NotFinite
from imgclf.training.optimizer import evaluated_params
from imgclf.training.phases import Phase, at
from imgclf.training.state import TrainState, Tree, tree_sha256
from imgclf.training.step import EvalStep, cross_entropy

SOUP = "soup"  # folder of the averaged model
OnEvaluation = Callable[[int, dict[str, float]], None]  # the evaluation's number, and val_loss and val_top1


class Interrupted(Exception):
    """Training was asked to stop (SIGTERM, Ctrl-C, a cluster's notice) and has saved its state."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped at step {step} by {signal.Signals(signum).name}")
        self.signum, self.step = signum, step


@dataclasses.dataclass
class TrainProgress:
    """What a checkpoint holds beside the state."""

    best_value: float | None = None
    best_epoch: float | None = None
    kept: str = ""  # folder name of the kept model
    ranked: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # value and folder of the models for a soup, best first
    evaluated_step: int = -1
    evaluations_since_best: int = 0
    stopped_early: bool = False
    seconds: float = 0.0  # of training so far, over all restarts


@dataclasses.dataclass(frozen=True)
class Fit:
    """The outcome of training: the kept model (numpy trees), what is known about it, and how training went."""

    params: Tree
    batch_stats: Tree
    about: dict[str, Any]
    progress: TrainProgress
    steps: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Durations in steps (batches); what recurs need not be a whole number of them."""

    total: int
    log: float
    evaluate: float
    checkpoint: float
    per_epoch: float

    @classmethod
    def from_config(cls, config: Config, steps_per_epoch: float) -> "Plan":
        if config.train.duration == "auto":
            total = durations.hyper_rule_steps(round(steps_per_epoch * config.loader.batch_size), config.loader.batch_size)
        else:
            total = durations.steps(config.train.duration, steps_per_epoch=steps_per_epoch, field="config.train.duration")
        if total < 1:
            raise UserError(f"config.train.duration={config.train.duration!r} is no step at all; make it longer.")

        def every(name: str) -> float:
            field = f"config.train.{name}"
            return durations.length(config.train[name], steps_per_epoch=steps_per_epoch, total_steps=total, field=field)

        return cls(total, every("log_every"), every("eval_every"), every("checkpoint_every"), steps_per_epoch)


class _StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a flag that the loop reads between batches; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        # With several processes JAX's own SIGTERM handler tells all of them, so that they save the same step.
        with contextlib.suppress(ValueError):  # outside the main thread, signals are the caller's
            for signum in (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ():
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def _handle(self, signum: int, frame: Any) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


class _StoppedWhileEvaluating(Exception):
    pass


def fit(
    config: Config,
    dataset: Dataset,
    state: TrainState,
    phases: Sequence[Phase],
    eval_step: EvalStep,
    schedule: optax.Schedule,
    mesh: Mesh,
    run: Path,
    console: Console,
    *,
    trained: bool = False,
    on_evaluation: OnEvaluation | None = None,
) -> Fit:
    """Trains through all phases from the newest checkpoint in `run`, or else from `state`, the first phase's first, to the end of the plan.

    With `trained`, the start is a model already (LP-FT's probe): it is evaluated too, and kept if nothing after it is better.
    `on_evaluation` is told of every evaluation on val; what it raises ends the training.

    Raises:
      Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
      UserError: for a loss that is not finite, a full disk, or checkpoints that are all damaged.
    """
    plan = Plan.from_config(config, pipeline.steps_per_epoch(dataset, config))
    has_val = bool((dataset.table["split"] == "val").any())
    best_metric = config.train.best_metric if has_val else ""
    patience = config.train.early_stopping.patience
    for field, value in (("early_stopping.patience", patience), ("soup", config.train.soup)):
        if value and not has_val:
            raise UserError(f"config.train.{field}={value} needs a val split; there is none. Give it a share in data.split.")

    checkpoints = Checkpoints(run / "checkpoints")
    progress = TrainProgress()
    restored = checkpoints.restore(lambda step: phases[at(phases, step)].like(state), console)
    if restored is not None:
        state, progress = restored.state, TrainProgress(**restored.progress)
        progress.ranked = [(value, name) for value, name in progress.ranked]
    first_step = step = int(state.step)
    phase = at(phases, step)
    if first_step:
        console.print(f"Continuing from step {first_step} of {plan.total}.", highlight=False)

    log = MetricsLog(run, step, plan.per_epoch)
    window = MetricsWindow()
    start = time.perf_counter()
    last_save = time.monotonic()
    paused = 0.0  # seconds since the last log line that went into evaluations and checkpoints
    logged_at, logged_step = start, step
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("training", total=plan.total, completed=step, note="compiling the step")

    @contextlib.contextmanager
    def pause() -> Iterator[None]:
        nonlocal paused
        began = time.perf_counter()
        yield
        paused += time.perf_counter() - began

    def write_metrics() -> None:
        nonlocal logged_at, logged_step, paused
        means = window.means()
        now = time.perf_counter()
        rate = (step - logged_step) * config.loader.batch_size / (now - logged_at - paused)
        logged_at, logged_step, paused = now, step, 0.0
        log.write(step, means | {"learning_rate": float(schedule(step - 1)), "images_per_second": round(rate, 2)})
        bar.update(task, note=f"loss {means['train_loss']:.4f}  {rate:,.0f} images/s")

    def write_model(name: str, params: Tree, batch_stats: Tree, about: dict[str, Any]) -> None:
        about = {"step": step, "epoch": step / plan.per_epoch, **about, "class_names": list(dataset.class_names)}
        checkpoints.save_model(name, params, batch_stats, about | {"params_sha256": tree_sha256(params)})

    def values_on_val(params: Tree, batch_stats: Tree) -> dict[str, float]:
        def check_stop(_: int) -> None:
            if stop.signum:
                raise _StoppedWhileEvaluating

        rows, logits = evaluate_split(eval_step, params, batch_stats, dataset, config, "val", mesh, check_stop)
        labels = dataset.table["label"].to_numpy()[rows]
        losses = np.asarray(cross_entropy(logits, labels), np.float64)
        return {"val_loss": float(losses.mean()), "val_top1": float((logits.argmax(-1) == labels).mean())}

    def evaluate() -> None:
        window.read()
        params = evaluated_params(state.params, state.opt_state)
        values = values_on_val(params, state.batch_stats)
        log.write(step, values)
        epoch = step / plan.per_epoch
        improved = bool(best_metric) and _improves(values, progress.best_value, config)
        if best_metric:
            value = values[best_metric]
            name = f"best-epoch-{epoch:06.2f}-{best_metric}-{value:.4f}"
            progress.ranked = _ranked([*progress.ranked, (value, name)], config)
            if improved or (value, name) in progress.ranked:
                write_model(name, params, state.batch_stats, {best_metric: value})
        if improved:
            progress.kept, progress.best_value, progress.best_epoch, progress.evaluations_since_best = name, value, epoch, 0
        else:
            progress.evaluations_since_best += 1
        progress.evaluated_step = step
        progress.stopped_early = bool(patience) and progress.evaluations_since_best >= patience
        console.print(
            f"epoch {epoch:7.2f}  step {step:6d}  val loss {values['val_loss']:.4f}  val top-1 {values['val_top1']:7.2%}"
            + ("  best so far" if improved else ""),
            highlight=False,
        )
        if on_evaluation is not None:
            on_evaluation(round(step / max(1.0, plan.evaluate)), values)

    def evaluate_if_due() -> None:
        due = durations.is_due(step, plan.evaluate) if step else trained
        if has_val and (due or step == plan.total) and step != progress.evaluated_step:
            with pause(), contextlib.suppress(_StoppedWhileEvaluating):  # the resumed run begins with this evaluation
                evaluate()

    def save() -> None:
        nonlocal last_save
        with pause():
            window.read()  # so that no state whose loss is not finite is ever saved
            seconds = progress.seconds + time.perf_counter() - start
            checkpoints.save(state, dataclasses.asdict(dataclasses.replace(progress, seconds=seconds)))
            if progress.kept:
                checkpoints.keep_only({progress.kept, *(name for _, name in progress.ranked)})
            last_save = time.monotonic()

    def asked_to_stop() -> int:
        if jax.process_count() > 1:
            return signal.SIGTERM if checkpoints.interrupted(step) else 0
        return stop.signum

    def done() -> bool:
        return step >= plan.total or progress.stopped_early

    def after_step() -> None:
        """Items 4 to 6 of the order of operations."""
        evaluate_if_due()
        signum = asked_to_stop()
        if signum:
            save()
            raise Interrupted(signum, step)
        if done() and not progress.kept:
            progress.kept = f"final-epoch-{step / plan.per_epoch:06.2f}"
            write_model(progress.kept, evaluated_params(state.params, state.opt_state), state.batch_stats, {})
        late = jax.process_count() == 1 and time.monotonic() - last_save > config.train.checkpoint_seconds  # clocks of hosts differ
        if done() or late or durations.is_due(step, plan.checkpoint):
            save()

    def make_soup() -> None:
        """Item 7; of a finished run it is there already."""
        if not (run / "checkpoints" / SOUP).is_dir():
            try:
                made = soup.greedy(
                    [name for _, name in progress.ranked],
                    lambda name: tuple(load_model(run / "checkpoints" / name)[0][part] for part in ("params", "batch_stats")),
                    lambda *model: values_on_val(*sharding.replicate(model, mesh))[best_metric],
                    lower_is_better=best_metric == "val_loss",
                )
            except _StoppedWhileEvaluating:
                raise Interrupted(stop.signum, step) from None
            about = {best_metric: made.value, "ingredients": list(made.ingredients), "candidates": len(progress.ranked)}
            write_model(SOUP, *sharding.replicate((made.params, made.batch_stats), mesh), about)
        progress.kept = SOUP

    with contextlib.closing(checkpoints), contextlib.closing(log), bar, _StopRequest() as stop:
        try:
            if not done():
                if first_step:
                    after_step()
                else:
                    evaluate_if_due()
            if not done():
                shard = {"shard": jax.process_index(), "shards": jax.process_count()}
                with pipeline.train_batches(dataset, config, start_step=step, num_steps=plan.total - step, **shard) as batches:
                    for batch in put_ahead(iter(batches), mesh, config.loader.prefetch):
                        if step == phases[phase].stop:
                            phase += 1
                            state = phases[phase].begin(state)
                        state, metrics = phases[phase].step(state, batch_augment.inputs(batch))
                        step += 1
                        window.add(step, metrics)
                        if durations.is_due(step, plan.log) or step == plan.total:
                            write_metrics()
                        bar.update(task, completed=step)
                        after_step()
                        if done():
                            break
                console.print(f"Trained {step - first_step} steps in {time.perf_counter() - start:.1f} s.", highlight=False)
                progress.seconds += time.perf_counter() - start
            if progress.ranked:
                make_soup()
        except NotFinite as error:
            raise UserError(_not_finite_message(error.steps, checkpoints.steps(), config)) from None
    model, about = load_model(run / "checkpoints" / progress.kept)
    return Fit(model["params"], model["batch_stats"], about, progress, step)


def _not_finite_message(bad: list[int], saved: list[int], config: Config) -> str:
    shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    sound = f"the checkpoint of step {saved[-1]} is sound" if saved else "no checkpoint was written"
    return (
        f"The training loss is not finite at step{'s' if len(bad) > 1 else ''} {shown}; {sound}. Start again, in another --workdir, with a "
        f"lower config.optimizer.learning_rate (now {config.optimizer.learning_rate}) or with config.train.clip_norm=1."
    )


def _ranked(models: list[tuple[float, str]], config: Config) -> list[tuple[float, str]]:
    """The `train.soup` best (value, name), best first, of equals the older; of one name the newer, as it was written over the older."""
    last = {name: float(value) for value, name in models if math.isfinite(value)}
    sign = 1 if config.train.best_metric == "val_loss" else -1
    return sorted(((value, name) for name, value in last.items()), key=lambda model: sign * model[0])[: config.train.soup]


def _improves(values: dict[str, float], best: float | None, config: Config) -> bool:
    metric = config.train.best_metric
    if not math.isfinite(values[metric]):
        return False
    if best is None:
        return True
    gain = best - values[metric] if metric == "val_loss" else values[metric] - best
    return gain > config.train.early_stopping.min_delta
