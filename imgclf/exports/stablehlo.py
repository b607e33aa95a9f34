"""Export to StableHLO: one file for CPU, CUDA and TPU, for any number of images, which JAX alone loads."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgclf.exports import folder, process
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.formats import Answers, Format
from imgclf.exports.program import program
from imgclf.models import forms

MODEL_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

_LOAD = f"""
import jax, jax.export
def load(folder):
    with open(folder + "/{MODEL_FILE}", "rb") as file:
        call = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
    return lambda image: {{name: np.asarray(value) for name, value in call(image).items()}}
"""


def _check(exportable: Exportable, options: Options) -> None:
    del exportable, options  # what JAX trains, JAX exports


def _write(exportable: Exportable, place: Path, options: Options) -> dict[str, Any]:
    del options
    (batch,) = jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *exportable.size, 3), np.uint8)
    with forms.portable("every platform"):
        exported = jax.export.export(jax.jit(program(exportable)), platforms=PLATFORMS)(image)
    (place / MODEL_FILE).write_bytes(exported.serialize())
    return {"jax": jax.__version__, "platforms": list(PLATFORMS), "calling_convention": exported.calling_convention_version}


def _answers(place: Path, images: np.ndarray, options: Options) -> Answers:
    return process.answers(place, images, _LOAD, ("imgclf", "flax"), options)


FORMAT = Format("stablehlo", MODEL_FILE, (folder.PREPROCESS, folder.PREDICT), _check, _write, _answers)
