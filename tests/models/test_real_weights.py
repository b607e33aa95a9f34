"""Real weights against the logits and accuracies that their origin gives; skipped where the shared files are not beside the checkout."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from networks import created
from PIL import Image

from imgclf.config import Config, default_config
from imgclf.data import pipeline
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.models.weights import pretrained
from imgclf.training.step import normalize

SQUEEZENET, MOBILENET = "squeezenet1_1.torchvision.safetensors", "mobilenet_v2_1.0_224.keras.h5"


def config_of(shared: Path, name: str, file: str, size: int, classes: int) -> Config:
    config = default_config()
    config.model.name, config.model.weights = name, f"path:{shared}/weights/{file}"
    config.data.image_size, config.data.mean, config.data.std = (size, size), (), ()
    return pretrained.resolve(config, classes)


def forward(config: Config, classes: int, method: str = "__call__"):
    graphdef, state = nnx.split(created(config, classes))

    @jax.jit
    def run(state, image):
        return getattr(nnx.merge(graphdef, state), method)(normalize(image, config.data.mean, config.data.std))

    return functools.partial(run, state)


def assert_equal_logits(ours, reference: np.ndarray) -> None:
    scale = np.abs(reference).max()
    np.testing.assert_allclose(np.asarray(ours) / scale, reference / scale, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "file", "reference"),
    [("squeezenet1_1", SQUEEZENET, "squeezenet1_1_logits.npz"), ("mobilenet_v2", MOBILENET, "mobilenet_v2_1.0_224_logits.npz")],
)
def test_logits_on_photographs(shared, name, file, reference):
    with np.load(shared / "weights/reference" / reference) as stored:
        assert_equal_logits(forward(config_of(shared, name, file, 224, 1000), 1000)(stored["inputs"]), stored["logits"])


def test_features_of_a_backbone_without_head(shared):
    config = config_of(shared, "mobilenet_v2_035", "mobilenet_v2_0.35_224_no_top.keras.h5", 224, 2)
    with np.load(shared / "weights/reference/mobilenet_v2_0.35_224_no_top_features.npz") as stored:
        assert_equal_logits(forward(config, 2, "features")(stored["inputs"]), stored["features"])


@pytest.mark.parametrize("depth", [20, pytest.param(56, marks=pytest.mark.slow)])
def test_logits_on_cifar(shared, depth):
    """The slow one is a second proof: its network's accuracy is compared below."""
    config = config_of(shared, f"resnet{depth}", f"resnet{depth}.cifar10.safetensors", 32, 10)
    with np.load(shared / "weights/reference/cifar_resnets_logits.npz") as stored:
        assert_equal_logits(forward(config, 10)(stored["inputs"]), stored[f"resnet{depth}_logits"])


def test_a_deeper_networks_file_is_recognised(shared):
    config = config_of(shared, "resnet20", "resnet56.cifar10.safetensors", 32, 10)
    with pytest.raises(UserError, match="it looks like weights of 'resnet56'"):
        created(config, 10)


def top_hits(config: Config, classes: int, truth: dict[str, int], k: int) -> tuple[int, int]:
    """How many images of `config.data`, all of them, have their class first, and among the first k; by the evaluation pipeline."""
    dataset = load_dataset(config)
    dataset = dataclasses.replace(dataset, table=dataset.table.assign(split="test"))
    labels = dataset.table["class_name"].map(truth).to_numpy()
    predict, ranks = forward(config, classes), []
    with pipeline.eval_batches(dataset, config, "test") as batches:
        for batch in batches:
            rows = batch["index"][batch["mask"]]
            ranks.append(ranks_of(np.asarray(predict(batch["image"]))[batch["mask"]], labels[rows]))
    ranks = np.concatenate(ranks)
    assert len(ranks) == len(dataset.table)
    return int((ranks < 1).sum()), int((ranks < k).sum())


def ranks_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (logits > np.take_along_axis(logits, labels[:, None], 1)).sum(1)


@pytest.mark.slow  # second proofs: ResNet-20's logits are compared above, and the way from files to an accuracy with SqueezeNet
@pytest.mark.parametrize(("depth", "correct"), [(20, 808), (32, 817), (44, 842), (56, 846)])
def test_accuracy_on_cifar(shared, depth, correct):
    config = config_of(shared, f"resnet{depth}", f"resnet{depth}.cifar10.safetensors", 32, 10)
    config.data.path, config.loader.eval_batch_size = str(shared / "data/cifar10_test1000"), 100
    names = sorted(path.name for path in (shared / "data/cifar10_test1000").iterdir() if path.is_dir())
    assert top_hits(config, 10, {name: label for label, name in enumerate(names)}, 5)[0] == correct


def photographs(shared: Path, name: str, file: str) -> tuple[Config, pd.DataFrame]:
    config = config_of(shared, name, file, 224, 1000)
    data = config.data
    data.source, data.path = "csv", str(shared / "data/imagenet_sample/labels.csv")
    data.columns.path, data.columns.label = "filename", "wnid"
    data.resize, data.crop_fraction, config.loader.eval_batch_size = "crop", 0.875, 25
    data.color_profile = False  # as the published figures, and those of the files, were measured
    return config, pd.read_csv(data.path)


def test_accuracy_of_squeezenet_on_photographs(shared):
    config, table = photographs(shared, "squeezenet1_1", SQUEEZENET)
    assert top_hits(config, 1000, dict(zip(table["wnid"], table["class_index"], strict=True)), 5) == (134, 171)  # 67.0 %, 85.5 %


@functools.cache  # in float32 for two tests
def logits_of_crops(shared: Path, name: str, file: str, precision: str, count: int) -> np.ndarray:
    """Of the first `count` photographs."""
    config, table = photographs(shared, name, file)
    config.model.precision = precision
    predict = forward(config, 1000)
    crops = np.stack([_pillow_crop(shared / "data/imagenet_sample" / filename) for filename in table["filename"][:count]])
    return np.concatenate([np.asarray(predict(crops[start : start + 25])) for start in range(0, count, 25)])


@pytest.mark.slow  # test_precision.py compares small networks at every run
@pytest.mark.parametrize(("name", "file", "typical"), [("squeezenet1_1", SQUEEZENET, 0.0073), ("mobilenet_v2", MOBILENET, 0.0337)])
def test_bf16_gives_photographs_the_classes_that_f32_gives(shared, name, file, typical):
    # all 200 in float32 serve the test below, too; a hundred take half the time
    exact = logits_of_crops(shared, name, file, "f32", 200 if name == "mobilenet_v2" else 100)[:100]
    near = logits_of_crops(shared, name, file, "bf16", 100)
    assert (exact.argmax(1) == near.argmax(1)).all()
    error = np.linalg.norm(near - exact, axis=1) / np.linalg.norm(exact - exact.mean(1, keepdims=True), axis=1)
    assert np.median(error) == pytest.approx(typical, rel=0.1)
    assert error.max() < 0.1


@pytest.mark.slow  # a second proof: its logits are compared above, and the way from photographs to an accuracy with SqueezeNet
def test_accuracy_of_mobilenet_on_photographs(shared):
    config, table = photographs(shared, "mobilenet_v2", MOBILENET)
    hits = top_hits(config, 1000, dict(zip(table["wnid"], table["class_index"], strict=True)), 5)
    # 88.5 % and, with Pillow's bilinear resize, 99.5 %: area averaging moves one photo, a husky, from rank 5 to 7
    assert hits == (177, 198)
    ranks = ranks_of(logits_of_crops(shared, "mobilenet_v2", MOBILENET, "f32", 200), table["class_index"].to_numpy())
    assert ((ranks < 1).sum(), (ranks < 5).sum()) == (177, 199)


def _pillow_crop(path: Path) -> np.ndarray:
    """As torchvision's Resize(256), CenterCrop(224), with which the published figures were measured."""
    with Image.open(path) as image:
        width, height = image.size
        size = (256, 256 * height // width) if width < height else (256 * width // height, 256)
        left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 224, top + 224)))
