"""Exports a classifier: writes the folder, passes it through the gate, and only then gives it its name."""

import os

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.exports import choices, folder, formats, gate
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.folder import Export

_GOLDEN = 3  # pictures that go along


def export(
    exportable: Exportable,
    to: str,
    out: str | os.PathLike[str],
    options: Options,
    *,
    overwrite: bool = False,
    console: Console,
) -> Export:
    """Exports a classifier into a folder of its own.

    Args:
      exportable: the classifier.
      to: a format, see `choices.FORMATS`.
      out: the folder; an older export of the same classifier in the same form is replaced.
      options: see `Options`.
      overwrite: whether to replace an export of something else.
      console: where the progress is shown.

    Returns:
      The export, as `folder.read` opens it.

    Raises:
      UserError: for options that the format doesn't have; if the folder is taken, or can't be written; if no image of the run can be read;
        if the export doesn't say of them what the classifier says. Nothing is left behind.
    """
    choices.check(to, options)
    chosen = formats.find(to)
    target = folder.check_target(out, exportable, to, options, overwrite=overwrite)
    chosen.check(exportable, options)
    with progress.bar(console) as bar, folder.writing(target) as aside:
        task = bar.add_task("Reading pictures", total=4)
        pictures = exportable.pictures.sample(gate.IMAGES)
        bar.update(task, description="Writing the model", advance=1)
        about = folder.describe(exportable, to, chosen.model_file, options, chosen.write(exportable, aside, options))
        folder.write_companions(exportable, aside, chosen.programs)
        folder.write_golden(pictures[:_GOLDEN], aside)
        bar.update(task, description="Asking the classifier", advance=1)
        wanted = gate.expected(exportable, pictures)
        bar.update(task, description="Asking the export", advance=1)
        answers = chosen.answers(aside, np.stack([picture.shown for picture in pictures]), options)
        table = {"megabytes": folder.megabytes(aside, chosen.model_file), **gate.passed(answers, wanted, pictures, options)}
        folder.finish(aside, about | {"table": table | about.get("table", {})})
    return folder.read(target)
