"""Whatever holds images: counted by position, and understood or refused in a sentence."""

import collections
import io
import types
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgclf import config as config_lib
from imgclf.data.images import ImageError
from imgclf.deploy import items
from imgclf.errors import UserError

CONFIG = config_lib.default_config().data


def shuffled(values: list, seed: int) -> pd.Index:
    return pd.Index(np.random.default_rng(seed).permutation(len(values)))


class Lazy(collections.abc.Sequence):
    """A sequence that reads when it is asked."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return self.values[row]


class Indexed:
    """No sequence by its class, as PyTorch's data sets are."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, row):
        return self.values[row]


# Everything in which people hold values one after the other: a function of the list, and of a number that draws the index.
HOLDERS = {
    "list": lambda v, _: v,
    "tuple": lambda v, _: tuple(v),
    "deque": lambda v, _: collections.deque(v),
    "generator": lambda v, _: (x for x in v),
    "iterator": lambda v, _: iter(v),
    "map": lambda v, _: map(str, v),
    "dict values": lambda v, _: dict(enumerate(v)).values(),
    "dict keys": lambda v, _: dict.fromkeys(v).keys(),
    "object array": lambda v, _: np.array(v, object),
    "string array": lambda v, _: np.array(v, str),
    "list of paths": lambda v, _: [Path(x) for x in v],
    "sequence": lambda v, _: Lazy(v),
    "indexed": lambda v, _: Indexed(v),
    "Series": lambda v, _: pd.Series(v, dtype=object),
    "str Series": lambda v, _: pd.Series(v, dtype="str"),
    "categorical Series": lambda v, _: pd.Series(pd.Categorical(v)),
    "shuffled Series": lambda v, seed: pd.Series(v, index=shuffled(v, seed), dtype=object),
    "Series with one label": lambda v, _: pd.Series(v, index=[7] * len(v), dtype=object),
    "Series with strings": lambda v, seed: pd.Series(v, index=shuffled(v, seed).astype(str), dtype=object),
    "Series with times": lambda v, _: pd.Series(v, index=pd.date_range("2024-01-01", periods=len(v))[::-1], dtype=object),
    "Series with two levels": lambda v, s: pd.Series(v, index=pd.MultiIndex.from_arrays([shuffled(v, s), [0] * len(v)]), dtype=object),
    "Series from its end": lambda v, _: pd.Series(v[::-1], dtype=object)[::-1],
    "Index": lambda v, _: pd.Index(v, dtype=object),
    "pandas array": lambda v, _: pd.array(v, dtype="str"),
    "DataFrame": lambda v, seed: pd.DataFrame({"path": v, "size": 1}, index=shuffled(v, seed)),
    "DataFrame by path": lambda v, _: pd.DataFrame({"size": 1}, index=pd.Index(v, name="path")),
}


@pytest.mark.parametrize("holder", HOLDERS)
@settings(max_examples=20, derandomize=True)
@given(count=st.integers(0, 12), seed=st.integers(0, 99))
def test_rows_are_by_position_whatever_holds_them(holder, count, seed):
    paths = [f"folder/{number}.jpg" for number in np.random.default_rng(seed).permutation(count)]
    taken = items.take(HOLDERS[holder](paths, seed), CONFIG)
    assert len(taken) == count
    backwards = {row: taken[row] for row in reversed(range(count))}  # threads ask in any order
    assert [str(backwards[row]) for row in range(count)] == paths
    assert list(taken.ids) == paths


@pytest.mark.parametrize("holder", [name for name in HOLDERS if name not in ("DataFrame", "DataFrame by path", "map", "indexed")])
@settings(max_examples=20, derandomize=True)
@given(count=st.integers(0, 12), seed=st.integers(0, 99))
def test_values_are_by_position_whatever_holds_them(holder, count, seed):
    values = [f"{number}" for number in np.random.default_rng(seed).permutation(count)]
    assert list(map(str, items.by_position(HOLDERS[holder](values, seed)))) == values


@pytest.mark.parametrize("value", ["cat", b"cat", {"a": 1}, 5, None, pd.DataFrame({"a": [1]})])
def test_what_holds_no_values_is_refused(value):
    with pytest.raises(UserError, match="stands where several are needed"):
        items.by_position(value)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_one_image_of_any_kind_is_one_row(pixels, tmp_path):
    data = png(pixels)
    (tmp_path / "a.png").write_bytes(data)
    written = io.BytesIO()
    written.write(data)  # it stands at its end
    with (tmp_path / "a.png").open("rb") as file, Image.open(tmp_path / "a.png") as picture:
        for source, name in ((file, str(tmp_path / "a.png")), (picture, str(tmp_path / "a.png")), (written, "0"), (data, "0")):
            taken = items.take(source, CONFIG)
            assert len(taken) == 1
            item = taken[0]
            assert isinstance(item, np.ndarray | bytes)
            assert (item == data) if isinstance(item, bytes) else np.array_equal(item, pixels)
            assert taken.ids == [name]
    for source in (bytearray(data), memoryview(data)):
        assert items.take(source, CONFIG)[0] == data
    np.testing.assert_array_equal(items.take(pixels, CONFIG)[0], pixels)


def test_a_batch_of_arrays_is_a_row_each(pixels):
    batch = np.stack([pixels, pixels[::-1]])
    taken = items.take(batch, CONFIG)
    assert len(taken) == 2
    np.testing.assert_array_equal(taken[1], pixels[::-1])
    assert taken.ids == ["0", "1"]
    grey = items.take(batch[..., :1], CONFIG)
    assert grey[0].shape == (6, 8, 3)

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return batch

    np.testing.assert_array_equal(items.take(Tensor(), CONFIG)[1], pixels[::-1])


def test_transparency_lies_over_white(pixels):
    clear = np.concatenate([pixels, np.zeros((6, 8, 1), np.uint8)], axis=2)
    assert (items.take(clear, CONFIG)[0] == 255).all()
    np.testing.assert_array_equal(items.take([Image.fromarray(clear)], CONFIG)[0], 255)


@pytest.mark.parametrize("mode", ["grey", "color"])
def test_deep_images_are_read_as_those_of_the_run(tmp_path, mode):
    values = np.random.default_rng(1).integers(0, 4096, (6, 8) if mode == "grey" else (6, 8, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values if mode == "grey" else values[:, :, ::-1])
    own = config_lib.default_config().data
    own.value_range = (("uint16", 0, 4095),)
    grey = values if mode == "color" else np.repeat(values[:, :, None], 3, axis=2)
    expected = np.rint(grey * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(items.take(values, own)[0], expected)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(items.take(picture, own)[0], expected)
        if mode == "grey":
            picture.load()
            np.testing.assert_array_equal(items.take(picture, own)[0], expected)


def test_a_pillow_image_stands_upright(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(items.take(picture, CONFIG)[0], np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32.*might mean anything.*\(255 \* array\)\.round\(\)"),
        (np.zeros((4, 4, 3), np.int64), "from 0 to 255"),
        (np.zeros((4, 4), bool), r"255 \* array"),
        (np.zeros((3, 40, 40), np.uint8), r"channels come last: array\.transpose\(1, 2, 0\)"),
        (np.zeros((9, 40, 40), np.uint8), r"several grey images are \[n, h, w, 1\]"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros(5, np.uint8), r"uint8 \[5\]"),
        (None, "no path"),
        (float("nan"), "no path"),
        (pd.NA, "no path"),
        ("", "no path"),
        (7, "of type int; give a path"),
        (["a.jpg"], "of type list; give a path"),
        (io.StringIO("x"), "open it with mode 'rb'"),
    ],
)
def test_what_is_no_image_is_told_of_its_row(item, told):
    taken = items.take(["a.jpg", item], CONFIG)
    assert taken[0] == "a.jpg"
    with pytest.raises(ImageError, match=told):
        taken[1]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "takes no NoneType: give paths"),
        (7, "takes no int"),
        ({"a.jpg": 1}, r"takes no dict.*images\.values\(\)"),
        (np.array([["a"]], object), "give one dimension"),
        (pd.DataFrame({"name": ["a"], "size": [1]}), r"no column of paths \('path' or 'id'\): give column= with one of 'name', 'size'"),
        (pd.DataFrame([["a", "b"]], columns=["path", "path"]), "several columns 'path'"),
        (types.SimpleNamespace(), "takes no SimpleNamespace"),
    ],
)
def test_what_holds_no_images_is_refused(source, told):
    with pytest.raises(UserError, match=told):
        items.take(source, CONFIG)


def test_frames_are_read_by_their_column(tmp_path):
    frame = pd.DataFrame({"file": ["b.jpg", "a.jpg"], "id": ["x", "y"], "path": ["c.jpg", "d.jpg"]}, index=[5, 3])
    taken = items.take(frame, CONFIG, column="file", root=tmp_path)
    assert [taken[0], taken[1], *taken.ids] == [f"{tmp_path}/b.jpg", f"{tmp_path}/a.jpg", "x", "y"]
    assert items.take(frame, CONFIG)[0] == "c.jpg"
    own = config_lib.default_config().data
    own.columns.path = "file"  # that of the table which the run was trained on
    assert items.take(frame, own)[0] == "b.jpg"
    assert items.take(frame[["file"]], CONFIG)[0] == "b.jpg"  # there is but one
    with pytest.raises(UserError, match="no column 'nam'"):
        items.take(frame, CONFIG, column="nam")
    with pytest.raises(UserError, match="is no folder"):
        items.take(frame, CONFIG, root=tmp_path / "nowhere")


def test_a_frame_with_a_root_is_read_as_a_list_that_trains(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "cat" / name).touch()
    frame = pd.DataFrame({"path": ["cat/1", "cat\\2.jpg", " cat/1.jpg", "gone"]})
    taken = items.take(frame, CONFIG, root=tmp_path)
    assert [taken[row] for row in range(4)] == [f"{tmp_path}/{name}" for name in ("cat/1.jpg", "cat/2.jpg", "cat/1.jpg", "gone")]
    assert taken.ids == frame["path"].tolist()


def test_ids_are_found_where_the_run_s_images_are(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").touch()
    own = config_lib.default_config().data
    own.source, own.path = "folder", str(tmp_path)
    taken = items.take(pd.DataFrame({"id": ["cat/1.jpg", "other.jpg"], "predicted": "dog"}), own)
    assert [taken[0], taken[1]] == [f"{tmp_path}/cat/1.jpg", "other.jpg"]
    assert taken.ids == ["cat/1.jpg", "other.jpg"]
    moved = items.take(pd.DataFrame({"id": ["cat/1.jpg"], "source": ["elsewhere"]}), own)
    assert moved[0] == "elsewhere/cat/1.jpg"
