"""Balances the classes of a data set on disk. Only the search for scenes needs JAX."""

import dataclasses
import os
from pathlib import Path

from rich.console import Console

from imgclf.config import Config, default_config, set_fields, validation
from imgclf.data import balance as balancing
from imgclf.data.augment import policies
from imgclf.data.balance import Done
from imgclf.data.prepare import prepare
from imgclf.data.recognition import is_table
from imgclf.workflows import checks
from imgclf.workflows.asked import Fields
from imgclf.workflows.console import or_terminal


@dataclasses.dataclass(frozen=True)
class Balanced:
    """What was done.

    Attributes:
      done: images per class before and after, and how many files were made and found.
      splits: images of each split, before copies were added.
      dropped: training images that were left out as copies of val or test images.
      table: labels.csv of the balanced data set, which `imgclf train csv:TABLE` reads.
    """

    done: Done
    splits: dict[str, int]
    dropped: int
    table: Path


def balance(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: int = 600,
    edge: int = 0,
    link: bool = False,
    fields: Fields = (),
    console: Console | None = None,
) -> Balanced:
    """Adds augmented copies of training images up to a number per class, after the split.

    Augmentation is what the grocery tutorial balanced its classes with, Keras's usual set (rotation up to 40 degrees, shifts, zoom and
    shear of 0.2, flips), with corrected geometry; augment.mode="keras_legacy" makes the copies as Keras did.

    Args:
      source: class folders, or a table of paths and labels.
      out: the folder to write: empty, absent, or begun by the same call, which an interrupted one continues.
      to: training images per class; classes that have more stay as they are.
      edge: longer side of the copies in pixels at most; 0 = the originals'.
      link: links to the originals instead of copies of their files.
      fields: of the config, see `load_config`: augment.*, data.* and seed count.
      console: where the progress is shown; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> balanced = imgclf.balance("photos", "balanced", to=22, edge=32, console=quiet)
      >>> balanced.done.before, balanced.done.after, balanced.table.name
      ({'blue': 14, 'green': 17, 'red': 21}, {'blue': 22, 'green': 22, 'red': 22}, 'labels.csv')
    """
    config = config_for(source)
    set_fields(config, fields)
    validation.validate(config)
    policies.check(config)
    policies.check(config)
    balancing.check(config)
    checks.check_data_path(config)
    checks.check_apart(config, Path(out), "--out")
    console = or_terminal(console)
    find_scenes = None
    if config.data.scenes != "off":
        from imgclf.workflows import scenes  # imports JAX: after the mistakes above

        find_scenes = scenes.finder(config, console)
    prepared = prepare(config, find_scenes=find_scenes)
    done = balancing.write(prepared.dataset, config, to, Path(out), console, edge=edge, link=link)
    splits = {str(name): int(count) for name, count in prepared.dataset.table["split"].value_counts().items()}
    return Balanced(done, splits, len(prepared.audit_report["dropped"]), Path(out) / balancing.TABLE)


def config_for(source: str | os.PathLike[str]) -> Config:
    """The config that a data set is balanced by, unless fields of it are set otherwise."""
    config = default_config()
    config.data.source = "csv" if is_table(os.fspath(source)) else "folder"
    config.data.path = os.fspath(source)
    config.augment.rotate = 40.0
    config.augment.shift = (0.2, 0.2)
    config.augment.shear = 11.459  # 0.2 radians: Keras's shear_range=0.2 are degrees, and do nothing
    config.augment.zoom = (0.8, 1.2)
    config.augment.flip = 0.5
    return config
