"""TFDS → table, from ArrayRecord files without tensorflow; every user's mistake is a sentence."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import folder_config, save
from PIL import Image

from imgclf.data import images
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def inspected(monkeypatch) -> list:
    """Grows by one per image that is decoded for verification."""
    calls = []

    def count(data, max_pixels, inspect=images.inspect):
        calls.append(max_pixels)
        return inspect(data, max_pixels)

    monkeypatch.setattr(images, "inspect", count)
    return calls


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> Path:
    """A data set of eight pictures, prepared as ArrayRecord from files, without tensorflow."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    files = {split: [str(save(folder / f"{split}{row}.png", row, (6 + row, 5))) for row in range(4)] for split in ("train", "test")}
    Path(files["train"][3]).write_bytes(Path(files["train"][3]).read_bytes()[:60])

    class ImgclfToy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["walle", "doraemon"])
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label}))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in files}

        def _generate_examples(self, split):
            for row, file in enumerate(files[split]):
                yield row, {"image": file, "label": row % 2}

    ImgclfToy(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def tfds_config(folder, **fields):
    config = folder_config("", source="tfds")
    config.data.tfds.name = "imgclf_toy"
    config.data.tfds.data_dir = str(folder)
    config.data.tfds.update(fields)
    return config


def test_tfds(tfds_folder, inspected):
    dataset = load_dataset(tfds_config(tfds_folder))
    table = dataset.table
    assert dataset.class_names == ("doraemon", "walle")  # sorted, whatever TFDS's order
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 4}
    assert set(table["source"]) == {"tfds:imgclf_toy/1.0.0"}
    assert table["id"].iloc[-1] == "test-00000-of-00001/3"
    assert dataset.quarantine["reason"].to_list() == ["truncated"]
    reader = pickle.loads(pickle.dumps(dataset.reader))
    for row, (split, width) in enumerate(zip(table["split"], table["width"], strict=True)):
        value = width - 6
        np.testing.assert_array_equal(reader[row], np.asarray(Image.open(tfds_folder / f"{split}{value}.png")))
        assert table["class_name"][row] == ("walle", "doraemon")[value % 2]
    assert len(inspected) == 8
    again = load_dataset(tfds_config(tfds_folder))
    assert len(inspected) == 8
    pd.testing.assert_frame_equal(again.table, table)


def test_tfds_slices_keep_their_ids(tfds_folder):
    whole = load_dataset(tfds_config(tfds_folder, train="", test="test")).table
    parts = load_dataset(tfds_config(tfds_folder, train="test[50%:]", test="test[:50%]")).table
    assert set(parts["split"]) == {"train", "test"}
    pd.testing.assert_frame_equal(
        whole.drop(columns="split"), parts.sort_values("id", ignore_index=True).drop(columns="split"), check_like=True
    )


def test_mistakes_with_tfds_are_sentences(tfds_folder):
    for fields, said in (
        ({"name": ""}, r"needs config\.data\.tfds\.name"),
        ({"name": "imgclf_toi"}, "no such data set"),
        ({"train": "", "test": ""}, "names no split"),
        ({"test": "tset"}, "Unknown split 'tset'"),
        ({"train": "test[:60%]"}, "overlap"),
    ):
        with pytest.raises(UserError, match=said):
            load_dataset(tfds_config(tfds_folder, **fields))
