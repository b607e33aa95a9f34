"""A folder of 100,000 files, made of hard links: listed once, kept, and found again."""

import importlib.util
import os

import numpy as np
import pytest
from pictures import folder_config, save

from imgclf.data import pipeline
from imgclf.data.prepare import prepare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, root):
    spec = importlib.util.spec_from_file_location("million_tree", root / "experiments" / "benchmarks" / "million_tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("tree")
    for number in range(40):
        save(folder / "photos" / f"{number}.jpg", number, (220, 160), quality=95)
    module.make(folder / "photos", folder / "tree", 100_000)
    for place, _, _ in os.walk(folder / "tree"):
        os.utime(place, (1_000_000_000, 1_000_000_000))  # not changed while they are listed
    return folder / "tree"


def test_the_second_start_finds_the_listing_and_makes_the_same_batches(tree):
    config = folder_config(tree, verify="background", audit="off", image_size=(150, 200), in_memory_mb=0)
    config.train.method = "fit"
    batches, tables = [], []
    for _ in range(2):
        dataset = prepare(config).dataset
        with pipeline.train_batches(dataset, config, num_steps=2) as stream:
            batches.append(list(stream))
        tables.append(dataset.table)
    assert len(tables[0]) == 100_000
    assert len(tables[0]["class_name"].unique()) == 1_250
    assert tables[0]["split"].value_counts().to_dict() == {"train": 92_500, "val": 7_500}
    assert tables[1].equals(tables[0])
    for one, other in zip(*batches, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])


def test_workers_get_the_names_of_files_not_the_columns(tree):
    import pickle

    config = folder_config(tree, verify="background", audit="off", image_size=(150, 200), in_memory_mb=0)
    config.train.method = "fit"
    dataset = prepare(config).dataset
    plain = pickle.dumps(dataset.reader)
    from imgclf.data.readers import for_workers

    sent = pickle.dumps(for_workers(dataset.reader))
    assert len(sent) < len(plain) / 2  # sizes below a megabyte are sent as they are
