"""Export to ONNX: the network with normalisation, calibration and softmax inside, for any number of images."""

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgclf.errors import UserError, missing_extra
from imgclf.exports import folder, process
from imgclf.exports.choices import Options
from imgclf.exports.exportable import Exportable
from imgclf.exports.formats import Answers, Format
from imgclf.exports.program import OUTPUTS, program
from imgclf.models import forms

MODEL_FILE = "model.onnx"
_MOST_BYTES = 2**31 - 1  # of one file of protocol buffers

_LOAD = f"""
import onnxruntime
def load(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder + "/{MODEL_FILE}", options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {{"image": image}})))
"""


def _check(exportable: Exportable, options: Options) -> None:
    del exportable
    for package in ("onnx", *(("onnxruntime",) if not options.python or options.precision != "float32" else ())):
        if importlib.util.find_spec(package) is None:
            raise missing_extra("An export to ONNX", package, "onnx")


def model_of(exportable: Exportable) -> Any:
    """The classifier as an onnx.ModelProto: "image" uint8 [batch,H,W,3] to `OUTPUTS`, float32.

    Raises:
      UserError: for an operation of the network that has no counterpart here.
    """
    from imgclf.exports.onnx_rules import graph_of  # and onnx: after the check that it is there

    run, (batch,) = program(exportable), jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *exportable.size, 3), np.uint8)

    def in_order(image: jax.Array) -> list[jax.Array]:
        outputs = run(image)
        return [outputs[name] for name in OUTPUTS]

    with forms.portable("plain"):
        graph, names = graph_of(in_order, image)
    for name, output in zip(names, OUTPUTS, strict=True):
        graph.named(name, output)
    classes: list[Any] = ["batch", len(exportable.class_names)]
    shapes = {"logits": classes, "probabilities": classes, "features": ["batch", "features"]}
    inputs: list[tuple[str, str, list[Any]]] = [("image", "uint8", ["batch", *exportable.size, 3])]
    model = graph.model(inputs, [(name, shapes[name]) for name in OUTPUTS], _metadata(exportable))
    if model.ByteSize() > _MOST_BYTES:
        raise UserError(f"The network has {model.ByteSize() / 1e9:.1f} GB, more than a file of ONNX holds: export it to stablehlo.")
    return model


def _metadata(exportable: Exportable) -> dict[str, str]:
    """What the file says of itself, by text."""
    values = {
        "class_names": list(exportable.class_names),
        "preprocessing": exportable.preprocessing,
        "mean": list(exportable.config.data.mean),
        "std": list(exportable.config.data.std),
        "temperature": exportable.temperature,
        "logit_offset": list(exportable.logit_offset),
        "licence": exportable.licence,
        "model": exportable.config.model.name,
        "params_sha256": exportable.params_sha256,
    }
    # in ASCII, as the name of a class may be that of a folder which is no text, and the file takes text alone
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _write(exportable: Exportable, place: Path, options: Options) -> dict[str, Any]:
    import onnx

    model, path = model_of(exportable), place / MODEL_FILE
    about: dict[str, Any] = {"opset": model.opset_import[0].version, "onnx": onnx.__version__}
    if options.precision == "float32":
        path.write_bytes(model.SerializeToString())
        return about
    from imgclf.exports import quantization

    with contextlib.ExitStack() as stack:
        whole = quantization.beside(path, stack)
        whole.write_bytes(model.SerializeToString())
        if options.fp16:
            quantization.to_float16(model, path)
            return about
        return about | {"table": quantization.to_int8(exportable, whole, path)}


def _answers(place: Path, images: np.ndarray, options: Options) -> Answers:
    return process.answers(place, images, _LOAD, ("imgclf", "jax", "flax"), options)


FORMAT = Format(
    "onnx",
    MODEL_FILE,
    (folder.PREPROCESS, folder.PREDICT),
    _check,
    _write,
    _answers,
)
