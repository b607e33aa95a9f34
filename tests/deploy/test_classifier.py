"""What users call: every kind of input, in order, and one sentence for what is none."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import imgclf
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def classifier(finished):
    return imgclf.load(finished[0])


@pytest.fixture(scope="module")
def paths(photo_folder) -> list[str]:
    return sorted(map(str, photo_folder.rglob("*.*")))


@pytest.fixture(scope="module")
def expected(classifier, paths) -> pd.DataFrame:
    table = classifier.predict(paths)
    assert table["top1_probability"].nunique() > 30  # else an image could have another's answer unseen
    return table


def check(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table.drop(columns="id"), expected.drop(columns="id"), rtol=1e-5)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 36), kind=st.sampled_from(["shuffled", "duplicated", "text", "times", "levels"]))
def test_a_series_is_answered_as_the_list_of_its_values(classifier, paths, expected, seed, count, kind):
    order = np.random.default_rng(seed).permutation(36)[:count]
    index = {
        "shuffled": pd.Index(order),
        "duplicated": pd.Index(order % 3),
        "text": pd.Index(order.astype(str)),
        "times": pd.to_datetime(order, unit="D"),
        "levels": pd.MultiIndex.from_arrays([order % 2, order]),
    }[kind]
    series = pd.Series([paths[row] for row in order], index=index)
    table = classifier.predict(series)
    pd.testing.assert_frame_equal(table, expected.iloc[order].reset_index(drop=True), rtol=1e-5)
    probabilities = classifier.predict_probabilities(series)
    np.testing.assert_allclose(probabilities.max(1), expected["probability"].iloc[order], rtol=1e-5)


def test_images_in_memory_are_answered_as_their_files(classifier, paths, expected):
    def opened():
        return [Image.open(path) for path in paths]

    def arrays():
        return [np.asarray(Image.open(path)) for path in paths]

    check(classifier.predict(opened()), expected)
    check(classifier.predict([open(path, "rb").read() for path in paths]), expected)  # noqa: SIM115
    check(classifier.predict(pd.Series(arrays(), index=range(36, 0, -1))), expected)
    same = opened()[0]
    check(classifier.predict([same] * 9), expected.iloc[[0] * 9].reset_index(drop=True))  # one image, read in several threads
    assert classifier.predict(opened()[3])["id"].tolist() == [paths[3]]
    assert classifier.predict(arrays()[:2])["id"].tolist() == ["0", "1"]


def test_a_folder_and_a_list_file_tell_of_each_image(classifier, photo_folder, expected, tmp_path):
    table = classifier.predict(photo_folder)
    assert table["id"].tolist() == sorted(f"{path.parent.name}/{path.name}" for path in photo_folder.rglob("*.*"))
    check(table.drop(columns="reason"), expected)
    (tmp_path / "list.csv").write_text(f"path\n{photo_folder}/red/1.png\nnowhere.jpg\n")
    listed = classifier.predict(tmp_path / "list.csv")
    assert [reason.split(":")[0] for reason in listed["reason"]] == ["", "missing"]
    with pytest.raises(UserError, match=r"nowhere\.jpg can't be classified \(missing: no such file.*\): check the path"):
        classifier.predict(tmp_path / "list.csv", on_error="raise")


def test_a_frame_of_the_run_is_understood(classifier, finished, photo_folder):
    run = pd.read_csv(finished[0] / "predictions.csv")
    table = classifier.predict(run)
    assert table["id"].tolist() == run["id"].tolist()
    assert table["predicted"].tolist() == run["predicted"].tolist()
    data = imgclf.load_images(photo_folder, verbose=False)
    assert classifier.predict(data.table[::-1])["predicted"].tolist() == classifier.predict(data)["predicted"].tolist()[::-1]


def test_one_bad_image_ends_the_call_or_has_a_row(classifier, paths, expected, tmp_path):
    (tmp_path / "note.jpg").write_text("not a picture")
    mixed = [paths[0], tmp_path / "note.jpg", paths[1], tmp_path, None]
    with pytest.raises(UserError, match=r"note\.jpg can't be classified .*convert it .*on_error='row'"):
        classifier.predict(mixed)
    table = classifier.predict(mixed, on_error="row")
    assert [reason.split(":")[0] for reason in table["reason"]] == ["", "not_an_image", "", "unreadable", "missing"]
    assert table["id"].tolist() == [paths[0], str(tmp_path / "note.jpg"), paths[1], str(tmp_path), "4"]
    assert table["predicted"].isna().tolist() == [False, True, False, True, True]
    check(table.iloc[[0, 2]].reset_index(drop=True).drop(columns="reason"), expected[:2])
    probabilities = classifier.predict_probabilities(mixed, on_error="row")
    np.testing.assert_array_equal(np.isnan(probabilities).all(1), [False, True, False, True, True])
    with pytest.raises(UserError, match=r"Image 1 \(counted from 0\) can't be classified \(missing: no path\)"):
        classifier.predict([paths[0], None])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"threshold": 80}, r"did you mean 0\.8"),
        ({"on_error": "skip"}, "on_error='skip'"),
    ],
)
def test_options_are_checked_before_anything_is_read(classifier, options, told):
    with pytest.raises(UserError, match=told):
        classifier.predict("nowhere.jpg", **options)


def test_sets_are_refused_before_anything_is_read(classifier):
    without = dataclasses.replace(classifier, conformal=None)
    with pytest.raises(UserError, match="no conformal threshold"):
        without.predict("nowhere.jpg", conformal=True)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("http://127.0.0.1:9/a.jpg", "can't be read .*it was tried for 1 s"),
        ("photos/*.jpg", r"give glob\.glob"),
        ("a\0b.jpg", "unreadable"),
        ("", r"The image can't be classified \(missing: no path\): leave it out"),
    ],
)
def test_the_way_out_is_that_of_the_mistake(classifier, name, told, monkeypatch):
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "1")
    with pytest.raises(UserError, match=told):
        classifier.predict(name)


def test_the_run_s_own_tables_are_lists(classifier, finished):
    table = pd.read_parquet(finished[0] / "dataset.parquet")
    predicted = classifier.predict(finished[0] / "dataset.parquet")
    assert predicted["id"].tolist() == table["id"].tolist()
    assert (predicted["reason"] == "").all()


@pytest.mark.parametrize("name", ["config.json", "results.json"])
@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_damaged_run_is_told(finished, tmp_path, name, text):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    if text is not None:
        (run / name).write_text(text)
    elif name == "config.json":
        (run / name).unlink()
    else:
        (run / name).write_text("{}")
    with pytest.raises(UserError, match=r"is damaged: its config\.json or results\.json can't be read"):
        imgclf.load(run)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="where the folder of a run is needed"):
        imgclf.load(None)
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        imgclf.load(tmp_path / "nowhere")
