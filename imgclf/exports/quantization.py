"""A model of ONNX in 8-bit integers, or in 16-bit floats, and what that costs and buys.

Static, per channel, with the integers' ranges between the convolutions (QDQ); linear layers, and so the head, stay in float32. On 200
photos of ImageNet (MobileNetV2), a range per tensor instead of per channel, or ranges that are found while the model runs, left 5 and
1.5 % accuracy.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgclf import formatting
from imgclf.errors import UserError
from imgclf.evaluation import compare
from imgclf.exports.exportable import Exportable
from imgclf.exports.gate import AGREEMENT
from imgclf.exports.pictures import Labeled

_CALIBRATION = 128  # training images
_SCORED = 1000  # val images
_CALIBRATED = 2  # images at a time, as all maps of a batch are in memory at once: 5 GB for 16 at MobileNetV2's size
_BATCH = 16
_TRIES = 5


def beside(path: Path, stack: contextlib.ExitStack) -> Path:
    """A path for a file that is needed for as long as the stack lives, such as the model in float32."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgclf-export-")))
    return work / path.name


def to_float16(model: Any, path: Path) -> None:
    """Writes a model with weights and activations in 16-bit floats; the outputs stay in 32, and so does the softmax."""
    import onnx
    from onnxruntime.transformers import float16

    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, "Softmax", "Exp", "ReduceSum", "ReduceMax"]
    with _quiet():
        found = float16.convert_float_to_float16(onnx.shape_inference.infer_shapes(model), keep_io_types=True, op_block_list=blocked)
    path.write_bytes(found.SerializeToString())


def to_int8(exportable: Exportable, whole: Path, path: Path) -> dict[str, Any]:
    """Writes a model whose convolutions are in integers, and compares it with the one in float32.

    Args:
      exportable: with the pictures.
      whole: the file of the model in float32.
      path: the file to write.

    Returns:
      For the export's table: `top1_agreement` on `scored` images, `cost`, a sentence, and where the images have labels that the model was
      not trained on, `top1`, `top1_float32`, `top1_difference` and `top1_difference_ci95`.

    Raises:
      UserError: if there are no training images, or fewer than 97 % of the answers stay the same.
    """
    calibration = exportable.pictures.split("train", _CALIBRATION)
    if not len(calibration.shown):
        raise UserError(
            f"Integers are fitted to training images, and none of {exportable.pictures.where} is one that can be read: bring them back, or "
            "leave out int8=True."
        )
    _quantize(whole, path, calibration.shown)
    scored, labeled = _scored(exportable, len(calibration.shown))
    sessions = {"float32": _session(whole), "int8": _session(path)}
    logits = {name: np.concatenate([session(part) for part in _parts(scored.shown)]) for name, session in sessions.items()}
    answers = {name: found.argmax(1) for name, found in logits.items()}
    agreement = float((answers["float32"] == answers["int8"]).mean())
    ms = _milliseconds(sessions, scored.shown)
    megabytes = [file.stat().st_size / 1e6 for file in (whole, path)]
    which = "val" if labeled else "training"
    cost = (
        f"int8: {agreement:.1%} of the answers on {len(scored.shown):,} {which} images as in float32; {_size(megabytes[1])} instead of "
        f"{_size(megabytes[0])}; {ms['int8']:.1f} instead of {ms['float32']:.1f} ms for {_BATCH} images."
    )
    found: dict[str, Any] = {"top1_agreement": agreement, "scored": len(scored.shown)}
    if labeled:
        right = {name: answer == scored.labels for name, answer in answers.items()}
        pair = compare.paired(right["float32"][None], right["int8"][None])
        low, high = pair["difference_ci95"]
        found |= {"top1": float(right["int8"].mean()), "top1_float32": float(right["float32"].mean())}
        found |= {"top1_difference": pair["difference"], "top1_difference_ci95": [low, high]}
        cost += (
            f" Top-1 {found['top1']:.1%} instead of {found['top1_float32']:.1%}, a difference of "
            f"{formatting.points(pair['difference'])} points (95 % interval {formatting.points(low)} to {formatting.points(high)})."
        )
    if megabytes[1] >= megabytes[0]:
        cost += " It is no smaller, as the integers' scales weigh more than so few weights save: int8 pays for larger networks."
    elif ms["int8"] >= ms["float32"]:
        cost += " It is no faster on this machine."
    if agreement < AGREEMENT:
        raise UserError(f"The export was not kept, as fewer than {AGREEMENT:.0%} of its answers stay the same. {cost} Try fp16=True.")
    return found | {"cost": cost, "ms_batch_16_float32": round(ms["float32"], 2)}


def _size(megabytes: float) -> str:
    return f"{megabytes:.1f} MB" if megabytes >= 1 else f"{1000 * megabytes:,.0f} kB"


def _quantize(whole: Path, path: Path, images: np.ndarray) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._parts = _parts(images, _CALIBRATED)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"image": part} for part in self._parts), None)

    with _quiet():
        quantization.quantize_static(
            whole,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Clip"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back onnxruntime's advice, which it gives to the root logger, to fold what is folded already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _scored(exportable: Exportable, calibrated: int) -> tuple[Labeled, bool]:
    """Images to compare the answers on, and whether these are val; else they are training images, if possible others than `calibrated`."""
    found = exportable.pictures.split("val", _SCORED)
    if len(found.shown):
        return found, True
    train = exportable.pictures.split("train", calibrated + _SCORED)
    rest = slice(calibrated, None) if len(train.shown) > 2 * calibrated else slice(None)
    return Labeled(train.shown[rest], train.labels[rest], train.groups[rest]), False


def _session(path: Path) -> Any:
    """A function from images, uint8 [B,H,W,3], to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image})[0]


def _parts(images: np.ndarray, size: int = _BATCH) -> Iterator[np.ndarray]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _milliseconds(sessions: dict[str, Any], images: np.ndarray) -> dict[str, float]:
    """The least time of each for a batch, in turns, as other programs may be running."""
    batch = np.concatenate([images] * -(-_BATCH // len(images)))[:_BATCH]
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(_TRIES):
        for name, session in sessions.items():
            start = time.perf_counter()
            session(batch)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: min(found) for name, found in times.items()}
