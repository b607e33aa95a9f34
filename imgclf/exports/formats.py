"""The formats of exports by name. A format is a module of this package with a `FORMAT`, and its line in `choices.FORMATS`."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.exports.choices import Options, check
from imgclf.exports.exportable import Exportable, Outputs


@dataclasses.dataclass(frozen=True)
class Answers:
    """What an exported model said of pictures, in a process without imgclf.

    Attributes:
      outputs: for each number of images at a time, such as 1, 3 and 16, what it said of all of them: "logits" [N,C] at least. None at all
        where the library that the format is for is not at hand, and the format has a proof of another kind.
      cold_start_s: seconds from the start of the process to the first answer; None where there was none.
      ms: milliseconds for a batch of 1 and of 16 images, the least of several tries.
    """

    outputs: dict[int, Outputs]
    cold_start_s: float | None
    ms: dict[int, float]


UNASKED = Answers({}, None, {})


@dataclasses.dataclass(frozen=True)
class Format:
    """A form in which a classifier leaves imgclf.

    Attributes:
      name: as the user gives it.
      model_file: the file in the export's folder that the model is in.
      programs: files of imgclf/exports/programs that go along.
      check: raises a UserError where this classifier can't be exported so, or a package is missing; quick, before anything is made.
      write: writes the model file, and others, into a folder; returns what export.json says of it beside the rest.
      answers: runs the model in the folder on pictures, uint8 [N,H,W,3], in another process.
    """

    name: str
    model_file: str
    programs: tuple[str, ...]
    check: Callable[[Exportable, Options], None]
    write: Callable[[Exportable, Path, Options], dict[str, Any]]
    answers: Callable[[Path, np.ndarray, Options], Answers]


def find(name: str) -> Format:
    """The format of this name.

    Raises:
      UserError: if there is none.
    """
    check(name, Options())
    found: Format = importlib.import_module(f"imgclf.exports.{name}").FORMAT
    return found
