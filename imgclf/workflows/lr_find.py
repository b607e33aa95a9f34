"""Finds a learning rate for a config, and leaves a page about it."""

import dataclasses
import os
from pathlib import Path

from rich.console import Console

from imgclf import models, outputs
from imgclf.config import Config
from imgclf.methods import lr_find as finder
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.reporting import lr_find as page
from imgclf.runtime import compilation_cache
from imgclf.training import sharding
from imgclf.training.lr_range import Suggestion, Sweep, suggest
from imgclf.workflows import checks, run_folder, scenes, train
from imgclf.workflows.asked import Asked, Fields, asked_for
from imgclf.workflows.console import or_terminal


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """What was found.

    Attributes:
      sweep: the losses of the steps, by their learning rate.
      suggestion: the learning rates that they speak for.
      configured: the config's own learning rate.
      page: lr_find.html, beside lr_find.png and lr_find.json.
    """

    sweep: Sweep
    suggestion: Suggestion
    configured: float
    page: Path


def lr_find(  # noqa: PLR0913  (options by name)
    config: Config | str | os.PathLike[str],
    *,
    fields: Fields = (),
    steps: int = finder.STEPS,
    low: float = finder.LOW,
    high: float = finder.HIGH,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> LearningRates:
    """Finds a learning rate: lets it rise over real training steps, and reads off where the loss falls best (Smith, 2017).

        found = imgclf.lr_find("finetune:photos")
        config = imgclf.load_config("finetune:photos", {"optimizer.learning_rate": found.suggestion.valley})

    Nothing of an earlier run is read or changed.

    Args:
      config: the whole config, or what `load_config` reads one from: a name, a file, a run.
      fields: what is set in it, see `load_config`.
      steps: how many training steps to take at most.
      low, high: the first learning rate, and the last.
      out: the folder for the page; None = see `folder_of`, and there the first name that is free or the same config's.
      overwrite: whether to replace the page of another config in `out`.
      console: where to tell what happens; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> tiny = {"data.image_size": 16, "model.name": "cnn"}
      >>> found = imgclf.lr_find("folder:photos", fields=tiny, steps=20, out="rates", console=quiet)
      >>> 1e-7 < found.suggestion.valley < 10, found.page.name
      (True, 'lr_find.html')
    """
    console = or_terminal(console)
    asked = asked_for(config, fields)
    checked = train.check(asked.config)
    folder, of = Path(out).expanduser() if out is not None else folder_of(asked), page.identity(checked)
    checks.check_apart(checked, folder, "--out")
    target = folder / page.PAGE
    target = outputs.free_file(target, of) if out is None else outputs.check_file(target, of, overwrite=overwrite)
    compilation_cache.enable()
    config, dataset, audit_report = run_folder.images_for(asked, checked, scenes.finder(checked, console))
    train.describe_data(dataset, audit_report, console)
    resolved = resolve.resolve(config, len(dataset.class_names))
    model = models.create(resolved, len(dataset.class_names), tell=console.print)
    sweep = finder.find(Task(resolved, dataset, model, sharding.create_mesh(), console), low=low, high=high, steps=steps)
    suggestion = suggest(sweep, steps)
    written = page.write(target, checked, sweep, suggestion)
    return LearningRates(sweep, suggestion, checked.optimizer.learning_rate, written)


def folder_of(asked: Asked) -> Path:
    """Where the page goes by default: RUN/lr-find, or runs/NAME-MODEL-lr-find where the config is no run's."""
    config = asked.config
    if asked.run is not None:
        return asked.run / "lr-find"
    model = config.model.name
    named = config.name if model in config.name else f"{config.name}-{model}"
    return Path("runs") / f"{named}-lr-find"
