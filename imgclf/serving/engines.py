"""What computes the answers: a run's own network in JAX, or an export in onnxruntime; both decode images as `imgclf predict` does."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np

from imgclf.data import images
from imgclf.data.augment import Preprocessing
from imgclf.deploy.classifier import load
from imgclf.deploy.predictor import Answers, Predictor
from imgclf.errors import UserError, missing_extra
from imgclf.evaluation import calibration
from imgclf.evaluation.conformal import Conformal
from imgclf.exports import folder
from imgclf.runtime import processor
from imgclf.serving.explainer import Explainer

EngineName = Literal["auto", "jax", "onnx"]
MOST_SCANS = 200  # of a JPEG: each is a pass over all pixels, so that thousands of them, in a small file, take minutes to decode


class Engine(Protocol):
    """Decodes and classifies images, with the calibration of its run."""

    @property
    def name(self) -> str:
        """jax or onnx."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the probabilities."""

    @property
    def conformal(self) -> Conformal | None:
        """The run's rule."""

    @property
    def device_count(self) -> int:
        """Batches are a multiple of it."""

    @property
    def explainer(self) -> Explainer | None:
        """What says why; None where only answers can be computed."""

    def view(self, data: bytes) -> np.ndarray:
        """The network's input for the bytes of an image file, uint8; raises `images.ImageError`. Called in several threads."""

    def answers(self, views: np.ndarray) -> Answers:
        """Of stacked views, uint8 [n, …]. Called in several threads."""

    def blank(self, count: int) -> np.ndarray:
        """So many views of nothing, to warm up with."""


class JaxEngine:
    """The network of a run."""

    name = "jax"

    def __init__(self, predictor: Predictor, max_pixels: int):
        config = predictor.config.copy_and_resolve_references()
        config.data.max_pixels = min(max_pixels, config.data.max_pixels)
        self.predictor = dataclasses.replace(predictor, config=config)
        self.class_names, self.conformal = predictor.class_names, predictor.conformal
        self.device_count: int = jax.device_count()
        self.explainer: Explainer | None = Explainer(self.predictor)

    def view(self, data: bytes) -> np.ndarray:
        """See `Engine`."""
        check_scans(data)
        return self.predictor.view(data)

    def answers(self, views: np.ndarray) -> Answers:
        """See `Engine`."""
        return self.predictor.answers_of_views(views)

    def blank(self, count: int) -> np.ndarray:
        """See `Engine`."""
        return np.repeat(self.predictor.view(np.full((8, 8, 3), 128, np.uint8))[None], count, axis=0)


class OnnxEngine:
    """An export to ONNX."""

    name, device_count, explainer = "onnx", 1, None

    def __init__(self, export: folder.Export, max_pixels: int):
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra("The engine onnx", "onnxruntime", "onnx") from error
        self._export = export
        self.class_names, self.conformal = export.class_names, export.conformal
        self._open_set = export.open_set()
        framing: dict[str, Any] = dict(export.preprocessing)
        value_range, kinds = framing.pop("value_range"), framing.pop("kinds")
        self._decoding = images.Decoding(
            max_pixels,
            framing.pop("color_profile"),
            tuple(value_range) if value_range else None,
            tuple((str(kind), float(black), float(white)) for kind, black, white in kinds),
        )
        self._preprocessing = Preprocessing(**framing | {"size": export.size})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = processor.cores()  # not those of the machine: a container may have fewer
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else threads that wait keep those busy that could decode
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(export.model, options)
        except Exception as error:  # onnxruntime's own kinds of error share no better base
            raise UserError(f"onnxruntime can't open {export.model} ({str(error).splitlines()[0]}): export again.") from error
        self._outputs = ["logits", "features"] if self._open_set else ["logits"]

    def view(self, data: bytes) -> np.ndarray:
        """See `Engine`."""
        check_scans(data)
        return self._preprocessing.plain(images.decode(data, decoding=self._decoding))

    def answers(self, views: np.ndarray) -> Answers:
        """See `Engine`."""
        found = dict(zip(self._outputs, self._session.run(self._outputs, {"image": views}), strict=True))
        logits = found["logits"]
        if self._export.logit_offset:
            logits = logits + np.array(self._export.logit_offset, np.float32)
        p_values = self._open_set.p_values(found["features"]) if self._open_set else None
        return Answers(calibration.probabilities(logits, self._export.temperature), [""] * len(views), p_values)

    def blank(self, count: int) -> np.ndarray:
        """See `Engine`."""
        return np.full((count, *self._export.size, 3), 128, np.uint8)


def check_scans(data: bytes) -> None:
    """Refuses a progressive JPEG with more scans than any camera or program writes (ten or so).

    Raises:
      images.ImageError: for such a file.
    """
    if data[:2] == b"\xff\xd8" and (scans := data.count(b"\xff\xda")) > MOST_SCANS:
        raise images.ImageError("unsupported", f"a JPEG with {scans:,} scans, more than {MOST_SCANS}: save it anew")


def open_engine(path: Path, asked: EngineName, max_pixels: int) -> Engine:
    """Opens the engine of a run or an export.

    Args:
      path: of the folder.
      asked: "auto" = onnx for an export to ONNX, jax for a run. Of a run, "onnx" is its export in `exports/onnx`.
      max_pixels: of one image.

    Raises:
      UserError: where the folder is neither, is damaged, or can't be computed by the engine that was asked for.
    """
    is_export = (path / folder.EXPORT_JSON).exists()
    if asked == "jax" and is_export:
        raise UserError(f"{path} is an export, which the engine jax does not compute: name the run, or leave --engine out.")
    if asked != "onnx" and not is_export:
        return JaxEngine(load(path), max_pixels)
    place = path if is_export else path / "exports" / "onnx"
    if not is_export and not (place / folder.EXPORT_JSON).exists():
        raise UserError(f"{path} has no export in {place}: write it with imgclf export {path} --to onnx, or leave --engine out.")
    export = folder.read(place)
    if export.format != "onnx":
        raise UserError(f"{place} is an export to {export.format}, which is not served: export to onnx, or name the run.")
    return OnnxEngine(export, max_pixels)
