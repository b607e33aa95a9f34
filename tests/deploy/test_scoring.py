"""A classifier on labeled images: its accuracy with its interval, its mistakes with their pictures."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from color_images import picture

import imgclf
from imgclf.deploy import scoring
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def data(color_folder) -> imgclf.ImageData:
    return imgclf.load_images(color_folder, verbose=False)


@pytest.fixture(scope="module")
def parts(color_classifier) -> tuple[imgclf.ImageData, imgclf.ImageData]:
    return color_classifier[1]


@pytest.fixture(scope="module")
def classifier(color_classifier) -> imgclf.Classifier:
    return color_classifier[0]


def test_evaluation_has_its_interval_and_agrees_with_the_predictions(classifier, parts):
    result = classifier.evaluate(parts[1])
    table = classifier.predict(parts[1])
    assert table["id"].tolist() == parts[1].table["id"].tolist()
    assert table["true"].tolist() == parts[1].table["class_name"].tolist()
    assert result["top1"] == (table["predicted"] == table["true"]).mean() > 0.6
    assert result["top1_ci95"][0] < result["top1"]
    assert result["warnings"] == []
    assert "of 15 images right" in str(result)
    assert json.loads(json.dumps(result)) == result


def test_predictions_of_data_are_those_of_its_files(classifier, parts, color_folder):
    table = classifier.predict(parts[1], top_k=2)
    files = classifier.predict([color_folder / name for name in table["id"]], top_k=2)
    np.testing.assert_allclose(table["probability"], files["probability"], rtol=1e-5)


def test_probabilities_of_data_are_those_of_its_files(classifier, parts, color_folder):
    data = parts[1][::-1]
    found = classifier.predict_probabilities(data)
    files = classifier.predict_probabilities([color_folder / name for name in data.table["id"]])
    np.testing.assert_allclose(found, files, rtol=1e-5)


def test_classes_are_matched_by_name(classifier, parts):
    test = parts[1].filter(["red", "green"])  # their labels are 0 and 1 here, 1 and 2 in training
    whole = classifier.evaluate(parts[1])["per_class"]
    assert classifier.evaluate(test)["per_class"]["red"]["recall"] == whole["red"]["recall"]


def test_training_images_are_known_again(classifier, data, parts):
    assert classifier.evaluate(parts[0])["warnings"] == [
        "60 of 60 images were trained on: the accuracy on new images is lower.",
    ]
    assert "Warning: 60 of 75 images were trained on" in str(classifier.evaluate(data))


def test_half_of_ten_images_that_are_nearer_than_one_in_ten_would_be_are_of_known_scenes():
    assert scoring.of_known_scenes(np.linspace(0.01, 1, 200)) == ""
    assert scoring.of_known_scenes(np.array([1.0] * 9)) == ""
    assert scoring.of_known_scenes(np.array([1.0] * 4 + [0.5] * 6)) == ""
    assert scoring.of_known_scenes(np.array([1.0] * 5 + [0.5] * 5)).startswith("5 of 10 images are nearer")


def test_an_evaluation_warns_of_known_scenes(classifier, parts, monkeypatch):
    far_apart = dataclasses.replace(classifier.open_set, scores=np.full(60, 2.0, np.float32))  # as if no two scenes of training were alike
    knows = dataclasses.replace(classifier, open_set=far_apart)
    (warning,) = knows.evaluate(parts[1])["warnings"]
    assert warning.startswith("15 of 15 images are nearer to the training images")
    assert knows.evaluate(parts[0])["warnings"] == classifier.evaluate(parts[0])["warnings"]  # these were trained on: nothing to add
    monkeypatch.setattr(scoring, "is_large", lambda *_: True)
    assert knows.evaluate(parts[1])["warnings"] == [warning]


def test_unseen_classes_are_named(classifier, tmp_path):
    for name in ("cyan", "red"):
        picture(tmp_path / "image" / name / "a.png", 7, 1)
    with pytest.raises(UserError, match="has not seen class 'cyan' in training"):
        classifier.evaluate(imgclf.load_images(tmp_path / "image", verbose=False))
    with pytest.raises(UserError, match="needs labeled images"):
        classifier.evaluate(["a.png"])


def test_mistakes_are_listed_and_shown(classifier, color_folder, tmp_path, capsys):
    names = [f"{name}/{number}.png" for name in ("red", "green", "blue") for number in ("00", "02", "04")]
    labels = ["red", "blue", "red", "green", "red", "green", "blue", "blue", "blue"]
    pd.DataFrame({"path": names, "label": labels}).to_csv(tmp_path / "labels.csv")
    data = imgclf.load_images(tmp_path / "labels.csv", root=str(color_folder), verbose=False)
    table = classifier.predict(data)
    wrong = table[table["predicted"] != table["true"]]
    page = tmp_path / "out" / "mistakes.html"
    found = classifier.mistakes(data, page)
    assert len(found) == len(wrong) >= 2
    assert set(found["id"]) == set(wrong["id"])
    assert found["probability"].is_monotonic_decreasing
    assert (found["true_probability"] < found["probability"]).all()
    assert page.read_text().count("<article>") == len(found)
    assert f"{len(found)} mistake" in capsys.readouterr().out
    classifier.mistakes(data, page, verbose=False)  # its own page is replaced
    page.write_text("notes")
    with pytest.raises(UserError, match="no page of imgclf's"):
        classifier.mistakes(data, page)
    assert page.read_text() == "notes"
    classifier.mistakes(data, page, overwrite=True, verbose=False)
    assert "<img src=" in page.read_text()


def test_pages_go_into_the_run_and_replace_no_other(classifier, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(classifier.folder, run)
    copy = imgclf.load(run)
    for data in (parts[1], parts[0], parts[1]):
        copy.mistakes(data, verbose=False)
    assert sorted(path.name for path in run.glob("*mistakes*")) == ["mistakes-2.html", "mistakes.html"]
    assert list(tmp_path.iterdir()) == [run]
    other = dataclasses.replace(copy, temperature=2.0)  # another model
    page = run / "mistakes.html"
    before = page.read_bytes()
    with pytest.raises(UserError, match=r"holds another page \(mistakes: run on 15 images of image\).*overwrite=True"):
        other.mistakes(parts[1], page)
    assert page.read_bytes() == before
    other.mistakes(parts[1], page, overwrite=True, verbose=False)
    with pytest.raises(UserError, match="holds another page"):
        copy.mistakes(parts[1], page)
