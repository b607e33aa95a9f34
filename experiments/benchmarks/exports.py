"""The table of exports: every family of networks through the gate, in a Python that has neither imgclf nor JAX.

    python -m venv ORT && ORT/bin/pip install onnxruntime numpy pillow
    python experiments/benchmarks/exports.py PHOTOS --weights WEIGHTS --python onnx=ORT/bin/python --out exports.csv
    python experiments/benchmarks/exports.py PHOTOS --models small --formats stablehlo
    python experiments/benchmarks/exports.py PHOTOS --formats timm keras --python timm=TORCH/bin/python keras=TF/bin/python

PHOTOS is a folder of class folders, or a table. Weights are those of the folder WEIGHTS where it has them, with a random head for so many
--classes, else random ones of the published size: size and times don't depend on them. Each row is written to --out when it is measured;
what stands there already is passed over, and at the end all of it is printed as a table.
"""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
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

SIDES = {"inception_v3_tiny": 75, "xception_tiny": 71, "vit_tiny_dinov2": 56, "airbench94": 32}
# Of every kind of network the size that is published, or the least of several.
FULL = (
    *("cnn", "resnet18", "resnet50", "resnet18d", "resnet20", "airbench94", "resnext50_32x4d", "regnet_y_4gf", "mobilenet_v2"),
    *("mobilenet_v2_035", "mobilenet_v3_large", "mobilenet_v4_conv_small", "squeezenet1_1", "convnext_nano", "convnextv2_nano"),
    *("efficientnet_b0", "efficientnet_v2_s", "vgg16", "inception_v3", "xception", "densenet121", "vit_small_patch16_224"),
    *("vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224"),
)
_ENDINGS = ("_tiny", "_micro", "_tiny_dinov2", "_tiny_dinov3", "_tiny_siglip")
SMALL = ("cnn", "resnet20", *(name for name in registry.NAMES if name.endswith(_ENDINGS) and not registry.weights(name)))
# The files of a folder of weights, by the network that they are for.
PUBLISHED = {
    "mobilenet_v2": "mobilenet_v2_1.0_224.keras.h5",
    "mobilenet_v2_035": "mobilenet_v2_0.35_224_no_top.keras.h5",
    "resnet20": "resnet20.cifar10.safetensors",
    "squeezenet1_1": "squeezenet1_1.torchvision.safetensors",
}
COLUMNS = {
    "model": "model",
    "weights": "weights",
    "size": "pixels",
    "format": "format",
    "passed": "passed",
    "top1_agreement": "same answers",
    "max_difference": "greatest difference of a logit, of their spread",
    "megabytes": "MB",
    "cold_start_s": "cold start, s",
    "ms_batch_1": "1 image, ms",
    "ms_batch_16": "16 images, ms",
}


def drawn(tree: Tree, rng: np.random.Generator) -> Tree:
    """Random weights under which activations neither vanish nor explode."""

    def leaf(path: tuple[object, ...], like: jax.ShapeDtypeStruct) -> np.ndarray:
        if jax.tree_util.keystr(path).endswith(("'var']", "'scale']")):
            return rng.uniform(0.5, 1.5, like.shape).astype(np.float32)
        fan_in = np.prod(like.shape[:-1]) if len(like.shape) > 1 else 25
        return (rng.standard_normal(like.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def classifier(name: str, classes: int, weights: Path | None, to: str) -> Classifier:
    """A classifier for the size of images that its weights are published for; for Keras, as Keras's own weights would have it."""
    config = default_config()
    entries = list(registry.weights(name).values())
    if to == "keras" and (kerases := [entry for entry in entries if entry.name.startswith("keras/")]):
        entries = kerases
        config.model.variant = ", ".join(f"{key}={value!r}" for key, value in kerases[0].variant.items())
        config.model.head.kind = "family" if registry.family(name).head else "linear"
    sizes = [entry.input_size for entry in entries]
    side = SIDES.get(name, 64 if name.endswith(("_tiny", "_micro")) else 224)
    config.model.name, config.data.image_size = name, sizes[0] if sizes else (side, side)
    config.data.mean, config.data.std, config.data.resize = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop"
    names = tuple(f"class {i:03d}" for i in range(classes))
    if weights is not None:
        config.model.weights = f"path:{weights}"
        config = pretrained.resolve(config, classes)
        _, params, batch_stats = split_model(models.create(config, classes))
        return Classifier(config, names, params, batch_stats)
    config = pretrained.resolve(config, classes)
    _, params, batch_stats = split_model(nnx.eval_shape(lambda: models.create(config, classes)))
    rng = np.random.default_rng(0)
    return Classifier(config, names, drawn(params, rng), drawn(batch_stats, rng))


def row(name: str, to: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Exports a model and says what the gate measured."""
    file = arguments.weights / PUBLISHED[name] if arguments.weights and name in PUBLISHED else None
    made = classifier(name, arguments.classes, file, to)
    height, width = made.config.data.image_size
    start: dict[str, object] = {"model": name, "weights": "published" if file else "random", "size": f"{height} x {width}", "format": to}
    options = Options(python=arguments.python.get(to, ""))
    try:
        found = exporting.export(made, to, folder / f"{name}-{to}", options=options, images=arguments.photos, console=Console(quiet=True))
    except UserError as error:
        return start | {"passed": f"no: {error}"}
    shutil.rmtree(found.folder)
    return (
        start | {key: found.table[key] for key in COLUMNS if key in found.table} | {"passed": "yes" if found.table["images"] else "unasked"}
    )


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows in Markdown."""
    lines = [tuple(COLUMNS.values()), ("---",) * len(COLUMNS), *(tuple(shown(key, line[key]) for key in COLUMNS) for line in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(column: str, value: str) -> str:
    if column == "top1_agreement" and value:
        return f"{float(value):.0%}"
    if column == "max_difference" and value:
        return f"{float(value):.0e}"
    return f"{float(value):,.0f}" if value and column == "ms_batch_16" else value or "–"


def interpreters(given: Sequence[str]) -> dict[str, str]:
    return dict(one.split("=", 1) for one in given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of class folders, or a table")
    parser.add_argument("--python", nargs="+", default=[], help="FORMAT=INTERPRETER that has what runs the format, and no imgclf")
    parser.add_argument("--models", nargs="+", default=["full"], help="names; full: a published size of every kind; small; all")
    parser.add_argument("--formats", nargs="+", default=["onnx"], help="onnx, stablehlo, timm, keras")
    parser.add_argument("--weights", type=Path, help="a folder of published weights")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("exports.csv"))
    arguments = parser.parse_args()
    arguments.python = interpreters(arguments.python)
    asked = {"full": FULL, "small": SMALL, "all": registry.NAMES}
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
    print(table(list(csv.DictReader(arguments.out.open()))))


if __name__ == "__main__":
    main()
