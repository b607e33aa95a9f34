"""The table of exports: every family of networks through the gate, in a Python that has neither imgclf nor JAX.

Weights are random (the figures of a family don't depend on them, except how far answers agree); pictures are real ones.

    python -m venv ORT && ORT/bin/pip install onnxruntime numpy pillow
    python experiments/benchmarks/exports.py PHOTOS --python ORT/bin/python --out exports.csv
    python experiments/benchmarks/exports.py PHOTOS --python ORT/bin/python --models mobilenet_v2 resnet50 vit_small_patch16_224

PHOTOS is a folder of class folders, or a table. Each row is written when it is measured; models that --out has already are passed over.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from imgclf import models
from imgclf.config import default_config
from imgclf.deploy import exporting
from imgclf.deploy.classifier import Classifier
from imgclf.errors import UserError
from imgclf.exports.choices import Options
from imgclf.models import registry
from imgclf.models.weights import pretrained
from imgclf.training.state import Tree, split_model

TINY_SIDES = {"inception_v3_tiny": 75, "xception_tiny": 71, "vit_tiny_dinov2": 56}
CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "airbench94")
COLUMNS = ("model", "size", "format", "precision", "megabytes", "cold_start_s", "ms_batch_1", "ms_batch_16", "max_difference", "passed")


def drawn(tree: Tree, rng: np.random.Generator) -> Tree:
    """Random weights under which activations neither vanish nor explode."""

    def leaf(path: tuple[object, ...], like: jax.ShapeDtypeStruct) -> np.ndarray:
        if jax.tree_util.keystr(path).endswith(("'var']", "'scale']")):
            return rng.uniform(0.5, 1.5, like.shape).astype(np.float32)
        fan_in = np.prod(like.shape[:-1]) if len(like.shape) > 1 else 25
        return (rng.standard_normal(like.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def classifier(name: str, classes: int) -> Classifier:
    """A classifier with random weights, of the size of images that its weights are published for."""
    config = default_config()
    sizes = [entry.input_size for entry in registry.weights(name).values()] if name != "cnn" else []
    side = TINY_SIDES.get(name, 64 if name.endswith(("_tiny", "_micro")) and not sizes else 32 if name in CIFAR else 224)
    config.model.name, config.data.image_size = name, sizes[0] if sizes else (side, side)
    config.data.mean, config.data.std, config.data.resize = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop"
    config = pretrained.resolve(config, classes)
    _, params, batch_stats = split_model(nnx.eval_shape(lambda: models.create(config, classes)))
    rng = np.random.default_rng(0)
    names = tuple(f"class {i:03d}" for i in range(classes))
    return Classifier(config, names, drawn(params, rng), drawn(batch_stats, rng))


def row(name: str, to: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Exports a model and says what the gate measured."""
    made = classifier(name, arguments.classes)
    height, width = made.config.data.image_size
    start: dict[str, object] = {"model": name, "size": f"{height}x{width}", "format": to, "precision": "float32"}
    options = Options(python=str(arguments.python) if to == "onnx" else "")
    try:
        found = exporting.export(made, to, folder / f"{name}-{to}", options=options, images=arguments.photos, console=Console(quiet=True))
    except UserError as error:
        return start | {"passed": f"no: {error}"}
    return start | {key: found.table[key] for key in COLUMNS if key in found.table} | {"passed": "yes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of class folders, or a table")
    parser.add_argument("--python", type=Path, required=True, help="an interpreter with onnxruntime, numpy and Pillow alone")
    parser.add_argument("--models", nargs="+", default=["tiny"], help="names, or tiny: the small variant of every family; all: every model")
    parser.add_argument("--formats", nargs="+", default=["onnx"], help="onnx, stablehlo")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("exports.csv"))
    arguments = parser.parse_args()
    tiny = [name for name in registry.NAMES if not registry.weights(name) and name not in ("airbench94", "convnext_tiny")]
    asked = {"tiny": ["cnn", "resnet20", *(name for name in tiny if "tiny" in name or "micro" in name)], "all": list(registry.NAMES)}
    names = [found for name in arguments.models for found in asked.get(name, [name])]
    fresh = not arguments.out.exists()
    done = set() if fresh else {(line["model"], line["format"]) for line in csv.DictReader(arguments.out.open())}
    with arguments.out.open("a", newline="") as file, tempfile.TemporaryDirectory() as folder:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        for name, to in ((name, to) for name in names for to in arguments.formats):
            if (name, to) not in done:
                found = row(name, to, arguments, Path(folder))
                writer.writerow(found)
                file.flush()
                print(*found.values(), flush=True)


if __name__ == "__main__":
    main()
