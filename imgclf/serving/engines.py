"""What computes the answers: a run's own network in JAX, or an export in onnxruntime; both decode images as `imgclf predict` does."""

import dataclasses
import functools
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from imgclf.data import images
from imgclf.deploy.classifier import load
from imgclf.deploy.predictor import Answers, Predictor
from imgclf.evaluation.conformal import Conformal

EngineName = Literal["auto", "jax", "onnx"]
MOST_SCANS = 200  # of a JPEG: each is a pass over all pixels, so that thousands of them, in a small file, take minutes to decode


class Engine(Protocol):
    """Decodes and classifies images, with the calibration of its run."""

    name: str  # "jax" or "onnx"
    class_names: tuple[str, ...]
    conformal: Conformal | None
    device_count: int  # batches are a multiple of it

    def view(self, data: bytes) -> np.ndarray:
        """The network's input for the bytes of an image file, uint8; raises `images.ImageError`. Called in several threads."""

    def answers(self, views: np.ndarray) -> Answers:
        """Of stacked views, uint8 [n, …]. Called in one thread at a time."""

    def blank(self, count: int) -> np.ndarray:
        """So many views of nothing, to warm up with."""


class JaxEngine:
    """The network of a run."""

    name = "jax"

    def __init__(self, predictor: Predictor, max_pixels: int):
        import jax

        config = predictor.config.copy_and_resolve_references()
        config.data.max_pixels = min(max_pixels, config.data.max_pixels)
        self.predictor = dataclasses.replace(predictor, config=config)
        self.class_names, self.conformal = predictor.class_names, predictor.conformal
        self.device_count: int = jax.device_count()

    def view(self, data: bytes) -> np.ndarray:
        check_scans(data)
        return self.predictor.view(data)

    def answers(self, views: np.ndarray) -> Answers:
        return self.predictor.answers_of_views(views)

    def blank(self, count: int) -> np.ndarray:
        return np.repeat(self._gray[None], count, axis=0)

    @functools.cached_property
    def _gray(self) -> np.ndarray:
        return self.predictor.view(np.full((8, 8, 3), 128, np.uint8))


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
      asked: "auto" = onnx for an export to ONNX, jax for a run.
      max_pixels: of one image.

    Raises:
      UserError: where the folder is neither, is damaged, or can't be computed by the engine that was asked for.
    """
    return JaxEngine(load(path), max_pixels)
