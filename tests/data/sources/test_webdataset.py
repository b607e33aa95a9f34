"""Tar files as webdataset's own writer makes them → table."""

import gzip
import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import webdataset
from pictures import folder_config, noise
from PIL import Image

from imgclf.data import shard_names
from imgclf.data.prepare import load_path
from imgclf.data.table import load_dataset
from imgclf.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def png(seed: int) -> bytes:
    held = io.BytesIO()
    Image.fromarray(noise(12, 9, seed)).save(held, "PNG")
    return held.getvalue()


def config_of(path, args: str = ""):
    return folder_config(path, source="webdataset", source_args=args)


@pytest.fixture
def tars(tmp_path):
    """train-{000000..000001}.tar and val-000000.tar of three samples each."""
    for name, first in (("train-000000", 0), ("train-000001", 3), ("val-000000", 6)):
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar")) as writer:
            for row in range(first, first + 3):
                writer.write({"__key__": f"n0{row}/{row:04d}", "png": png(row), "cls": row % 2, "json": {"species": f"s{row % 3}"}})
    return tmp_path


def test_samples_splits_and_classes(tars):
    dataset, read_as = load_path(tars)
    assert read_as.source == "webdataset"
    table = dataset.table
    assert table["id"].tolist()[:2] == ["train-000000/n00/0000.png", "train-000000/n01/0001.png"]
    assert table["split"].tolist() == ["train"] * 6 + ["val"] * 3
    assert table["class_name"].tolist() == [str(row % 2) for row in range(9)]
    for row in (8, 0, 4):
        np.testing.assert_array_equal(dataset.reader[row], noise(12, 9, row))
    pattern = load_path(tars / "train-{000000..000001}.tar")[0]
    pd.testing.assert_frame_equal(pattern.table.drop(columns="source"), table[:6].drop(columns="source"))
    assert load_dataset(config_of(tars / "val*.tar")).table["split"].tolist() == ["val"] * 3


def test_a_file_that_is_no_tar_and_tars_without_images_are_told_apart(tmp_path):
    (tmp_path / "junk.tar").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"junk\.tar is no tar file, or a damaged one \(.+\)\. Name WebDataset"):
        load_dataset(config_of(tmp_path / "junk.tar"))
    with webdataset.TarWriter(str(tmp_path / "texts.tar")) as writer:
        writer.write({"__key__": "0", "cls": 1})
    with pytest.raises(UserError, match="none stands in its tar files"):
        load_dataset(config_of(tmp_path / "texts.tar"))


def test_names_of_classes_other_labels_and_a_compressed_file(tars):
    (tars / "classnames.txt").write_text("red fox\ngrey wolf\n")
    (tars / "val-000000.tar.gz").write_bytes(gzip.compress((tars / "val-000000.tar").read_bytes()))
    (tars / "val-000000.tar").unlink()
    dataset = load_dataset(config_of(tars))
    assert dataset.class_names == ("grey wolf", "red fox")
    np.testing.assert_array_equal(dataset.reader[8], noise(12, 9, 8))
    assert load_dataset(config_of(tars, "label='species'")).class_names == ("s0", "s1", "s2")
    with pytest.raises(UserError, match=r"no class .*label='species'"):
        load_dataset(config_of(tars, "label='genus'"))


def test_a_file_that_is_cut_off_loses_what_is_missing(tars):
    whole = (tars / "train-000001.tar").read_bytes()
    with tarfile.open(tars / "train-000001.tar") as tar:
        end = tar.getmember("n04/0004.png").offset_data
    (tars / "train-000001.tar").write_bytes(whole[: end + 100])
    dataset = load_dataset(config_of(tars))
    assert len(dataset.table) == 7
    assert dataset.quarantine.set_index("id")["reason"].to_dict() == {"train-000001.tar": "truncated"}
    (tars / "train-000001.tar").write_bytes(whole)
    assert len(load_dataset(config_of(tars)).table) == 9


def test_samples_that_can_not_be_used(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "0", "png": png(0), "seg.png": png(1), "cls": 0})
        writer.write({"__key__": "1", "png": png(2), "cls": 1})
        writer.write({"__key__": "2", "png": png(3)})
        writer.write({"__key__": "3", "cls": 1})
    dataset = load_dataset(config_of(tmp_path))
    assert len(dataset.table) == 2
    assert dataset.quarantine["reason"].tolist() == ["unlabeled"]
    assert dataset.ignored == {"sample without an image": 1}
    with webdataset.TarWriter(str(tmp_path / "b.tar")) as writer:
        writer.write({"__key__": "0", "png": png(0), "webp": png(1), "cls": 0})
    with pytest.raises(UserError, match="several images"):
        load_dataset(config_of(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.tar"):
        load_dataset(config_of(tmp_path / "empty"))


def test_braces():
    assert shard_names.expanded("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert shard_names.expanded("{train,val}-{0..1}.tar") == ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]
