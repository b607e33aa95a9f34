"""What do the first steps of fine-tuning do to a probe? Accuracy and loss on val after every few steps, for some recipes.

MobileNetV2 0.35 at 64 px, from the head of a logistic probe: random crops and flips, AdamW, cosine of 10 epochs, 10 % warm-up. DATA is a
folder of class folders, of which 30 % are val; "shots" makes one that is easy to follow: 81 photos of shared/data/imagenet_sample, each a
class of 16 shots that are cropped, turned and lit in other ways.
Cost: a minute or two an arm on 2 CPU cores, most of it compilation. Result: experiments/README.md.
Command: python experiments/first_steps.py [DATA|shots] [--steps 56] [--arms "1e-4" "1e-4, gain"]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageEnhance
from rich.console import Console

from imgclf import config as config_lib
from imgclf import models
from imgclf.config import Config, default_config
from imgclf.data import pipeline
from imgclf.data.prepare import prepare
from imgclf.methods import resolve
from imgclf.methods.base import Task
from imgclf.methods.probe import Probe
from imgclf.training import batch_augment, sharding
from imgclf.training.evaluate import put_ahead
from imgclf.training.setup import TrainingSetup

SHARED = "../shared"
WEIGHTS = f"{SHARED}/weights/mobilenet_v2_0.35_224_no_top.keras.h5"
PROJECT = r"backbone/blocks/\d+/project/conv/kernel"
ARMS: dict[str, dict[str, Any]] = {
    "1e-4": {},
    "5e-4": {"optimizer.learning_rate": 5e-4},
    "3e-5": {"optimizer.learning_rate": 3e-5},
    "1e-4, gain": {"optimizer.undo_norm_gain": True},
    "5e-4, gain": {"optimizer.undo_norm_gain": True, "optimizer.learning_rate": 5e-4},
    "1e-4, plain photos": {"augment.crop_scale": (1.0, 1.0)},
    "1e-4, the head alone": {"freeze.preset": "head"},
    "1e-4, head frozen": {"freeze.preset": "table", "freeze.table": (("head/.*", True), (".*", False))},
    "1e-4, scales and biases frozen": {"freeze.preset": "table", "freeze.table": ((".*/(scale|bias)", True), (".*", False))},
    "1e-4, projections alone": {"freeze.preset": "table", "freeze.table": ((PROJECT, False), (".*", True))},
    "1e-4, projections frozen": {"freeze.preset": "table", "freeze.table": ((PROJECT, True), (".*", False))},
}
EVALUATED = (0, 4, 8, 12, 16, 20, 28, 42, 56)


def make_shots(folder: Path) -> None:
    """Writes the shots: 81 class folders of 16 pictures of 80 px."""
    rng = np.random.default_rng(0)
    for number, file in enumerate(sorted(Path(SHARED, "data/imagenet_sample").rglob("*.JPEG"))[::2][:81]):
        photo = Image.open(file).convert("RGB")
        (folder / f"{number:02d}").mkdir(parents=True)
        for shot in range(16):
            side = min(photo.size) * np.sqrt(rng.uniform(0.1, 1))
            left, top = (rng.uniform(0, length - side) for length in photo.size)
            turned = photo.rotate(rng.uniform(-35, 35), resample=Image.Resampling.BILINEAR)
            view = turned.crop((int(left), int(top), int(left + side), int(top + side))).resize((80, 80), Image.Resampling.BILINEAR)
            ImageEnhance.Brightness(view).enhance(rng.uniform(0.7, 1.3)).save(folder / f"{number:02d}" / f"{shot:02d}.jpg", quality=90)


def configured(data: str, fields: dict[str, Any]) -> Config:
    config = default_config()
    config.data.path, config.data.image_size = data, (64, 64)
    config.data.split.method, config.data.split.fractions = "stratified", (0.7, 0.3, 0.0)
    config.model.name, config.model.weights = "mobilenet_v2_035", f"path:{WEIGHTS}"
    config.augment.crop_scale, config.augment.flip = (0.5, 1.0), 0.5
    config.train.method = "lp_ft"
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-4, 0.01
    config.optimizer.schedule.name, config.optimizer.schedule.warmup = "cosine", "10%"
    config_lib.override(config, fields)
    return resolve.check(config)


def follow(data: str, fields: dict[str, Any], steps: int) -> list[str]:
    """Trains for some steps from the probe; "step: top-1 / loss" on val."""
    prepared = prepare(configured(data, fields))
    dataset = prepared.dataset
    config = resolve.resolve(prepared.config, len(dataset.class_names))
    model, mesh = models.create(config, len(dataset.class_names)), sharding.create_mesh()
    with tempfile.TemporaryDirectory() as folder:
        probed = Probe.check(Task(config, dataset, model, mesh, Console(quiet=True))).train(Path(folder))
    setup = TrainingSetup.create(config, dataset, model, None, mesh)
    start = jax.tree.map(np.array, (probed.params, probed.batch_stats))
    state, told = setup.phases[0].first_state(*start), []

    def evaluate(step: int) -> None:
        if step in EVALUATED or step == steps:
            values = setup.evaluator.val_metrics(state.params, state.batch_stats)
            told.append(f"{step}: {100 * values['val_top1']:.1f} / {values['val_loss']:.3f}")

    evaluate(0)
    with pipeline.train_batches(dataset, config, num_steps=steps) as batches:
        for step, batch in enumerate(put_ahead(iter(batches), mesh, 2), start=1):
            state, _ = setup.phases[0].step(state, batch_augment.inputs(batch))
            evaluate(step)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default="shots")
    parser.add_argument("--steps", type=int, default=56)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.data == "shots":
            make_shots(Path(folder))
        for arm in asked.arms:
            data = folder if asked.data == "shots" else asked.data
            print(f"{arm}: {'; '.join(follow(data, ARMS[arm], asked.steps))}", flush=True)


if __name__ == "__main__":
    main()
