"""Classifies image files with the model beside this file: python predict.py PHOTO...

It needs Pillow and NumPy, and what runs the model: onnxruntime for model.onnx, JAX for model.stablehlo, timm for model.safetensors,
Keras for model.weights.h5. From Python:

    from predict import Model
    Model().probabilities(["photo.jpg"])  # float32 [1,C], in the order of Model().class_names
"""

import importlib
import io
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
HERE = pathlib.Path(__file__).parent


class Model:
    """The exported classifier."""

    def __init__(self, folder: str | pathlib.Path = HERE):
        about = json.loads((pathlib.Path(folder) / "export.json").read_text(encoding="utf-8"))
        self.class_names = about["class_names"]
        runs = {"onnx": onnx, "stablehlo": stablehlo, "timm": of_library, "keras": of_library}
        self._run: Run = runs[about["format"]](pathlib.Path(folder) / about["model_file"])

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [B,H,W,3] to a dict of float32 arrays: logits [B,C], probabilities [B,C] (calibrated), features [B,D]."""
        return self._run(images)

    def probabilities(self, files: Sequence[str]) -> np.ndarray:
        """Calibrated probabilities of image files, float32 [n,C]."""
        sys.path.insert(0, str(HERE))
        from preprocess import load  # type: ignore[import-not-found]  # the file beside this one

        return self(np.stack([load(file) for file in files]))["probabilities"]


def onnx(path: pathlib.Path) -> Run:
    """A function that runs a file of ONNX."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"image": images}), strict=True))


def stablehlo(path: pathlib.Path) -> Run:
    """A function that runs a file of StableHLO on whatever JAX finds: a CPU, a GPU or a TPU."""
    import jax
    import jax.export

    call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: {name: np.asarray(value) for name, value in call(images).items()}


def of_library(path: pathlib.Path) -> Run:
    """A function that runs a network of timm or Keras, by the program beside its file; it calibrates, which those networks can't."""
    about = json.loads((path.parent / "export.json").read_text(encoding="utf-8"))
    network = importlib.import_module(f"{about['format']}_network").load(path.parent)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        logits = network(images)["logits"]
        scaled = (logits + np.array(about["logit_offset"] or 0, np.float32)) / np.float32(about["temperature"])
        shares = np.exp(scaled - scaled.max(1, keepdims=True))
        return {"logits": logits, "probabilities": shares / shares.sum(1, keepdims=True)}

    return run


def main(photos: Sequence[str]) -> str:
    """Prints a line per photo: its name, class and probability. Returns what went wrong, "" = nothing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of classes and files may be no text, but bytes
    if not photos or photos[0] in ("-h", "--help"):
        return "python predict.py PHOTO..."
    try:
        model = Model()
    except Exception as error:  # onnxruntime, JAX, timm and Keras have no kind of error in common
        return f"The model in {HERE} can't be opened ({type(error).__name__}: {str(error).splitlines()[0]}): restore the export."
    unread = 0
    for photo in photos:
        try:
            row = model.probabilities([photo])[0]
        except (OSError, ValueError) as error:
            print(f"{photo} can't be read: {error}", file=sys.stderr)
            unread += 1
        else:
            print(f"{photo}\t{model.class_names[row.argmax()]}\t{row.max():.4f}")
    return f"{unread} of {len(photos)} images can't be read." if unread else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or 0)
