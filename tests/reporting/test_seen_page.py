"""The page of `imgclf data show`: views, partners and fields; and what lies beyond the end of training."""

import numpy as np
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf.data import pipeline
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.methods import resolve
from imgclf.reporting import seen as page


@pytest.fixture(scope="module")
def config():
    changes = {"augment.hue": 20.0, "augment.brightness": 0.3, "augment.erase": 0.5, "augment.erase_fill": "noise"}
    return resolve.resolve(digits_config(**changes, **{"loader.batch_size": 16}), 10)


@pytest.fixture(scope="module")
def dataset(config):
    return assign_splits(load_dataset(config), config)


def test_the_page(config, dataset, tmp_path):
    config = config.copy_and_resolve_references()
    config.augment.mixup = 1.0
    rows = np.flatnonzero(dataset.table["split"] == "train")[:2].tolist()
    text = page.write_page(tmp_path / "views.html", config, dataset, rows, range(3, 5), Console(quiet=True), steps=10_000).read_text()
    for expected in (
        *dataset.table["id"].iloc[rows],
        "epoch 3",
        "epoch 4",
        "MixUp: ",
        "augment.mixup=1",
        "augment.shift=(0.1, 0.1)",
        "seed=0",
    ):
        assert expected in text
    assert text.count("data:image/webp") == 2 * (1 + 2 + 2)


def test_views_beyond_the_end_of_training_are_said_to_be_what_it_would_show(config, dataset, tmp_path):
    rows = np.flatnonzero(dataset.table["split"] == "train")[:1].tolist()
    steps = 2 * pipeline.steps_per_epoch(dataset, config)  # two epochs
    text = page.write_page(tmp_path / "views.html", config, dataset, rows, range(1, 4), Console(quiet=True), steps=int(steps)).read_text()
    marked = {epoch: "<em>would show</em>" in text.split(f"<strong>epoch {epoch}</strong>")[1].split("</figure>")[0] for epoch in (1, 2, 3)}
    assert marked == {1: False, 2: True, 3: True}
    assert f"Training ends after {int(steps)} steps" in text
    inside = page.write_page(tmp_path / "views.html", config, dataset, rows, range(2), Console(quiet=True), steps=10_000).read_text()
    assert "would show" not in inside
