"""A saved model: the same classifier, in a folder of its own, which replaces nothing of others."""

import dataclasses
import shutil

import pandas as pd
import pytest

import imgclf
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def parts(color_classifier) -> tuple[imgclf.ImageData, imgclf.ImageData]:
    return color_classifier[1]


@pytest.fixture(scope="module")
def classifier(color_classifier) -> imgclf.Classifier:
    return color_classifier[0]


def test_a_saved_model_predicts_the_same_without_the_run(classifier, parts, tmp_path):
    run, expected = tmp_path / "run", classifier.predict(parts[1])
    shutil.copytree(classifier.folder, run)
    model = imgclf.load(run).save(tmp_path / "model")
    shutil.rmtree(run)
    again = imgclf.load(model)
    pd.testing.assert_frame_equal(again.predict(parts[1]), expected)
    assert again.evaluate(parts[0])["warnings"]
    assert "red/" not in pd.read_parquet(model / "dataset.parquet").to_csv()
    model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="is gone"):
        again.save(tmp_path / "second")


def test_saving_overwrites_saved_models_only(classifier, tmp_path):
    first = classifier.save(tmp_path / "model")
    (first / "results.json").write_text("{}")
    assert imgclf.load(classifier.save(first)).class_names == ("blue", "green", "red")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    other = tmp_path / "photos"
    other.mkdir()
    classifier.save(other)  # empty
    for target in (tmp_path / "notes", tmp_path / "diary.txt"):
        if target.suffix:
            target.write_text("dear")
        else:
            (target / "sub").mkdir(parents=True)
        for overwrite in (False, True):
            with pytest.raises(UserError, match="no saved model"):
                classifier.save(target, overwrite=overwrite)
    assert (tmp_path / "diary.txt").read_text() == "dear"
    another = dataclasses.replace(classifier, temperature=2.0)
    with pytest.raises(UserError, match=r"holds another saved model \(from run run\).*overwrite=True"):
        another.save(first)
    assert another.save(first, overwrite=True) == first
    with pytest.raises(UserError, match="where this classifier comes from"):
        classifier.save(classifier.folder)


def test_interrupted_saving_leaves_the_old_model(classifier, tmp_path, monkeypatch):
    model = classifier.save(tmp_path / "model")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        classifier.save(model)
    monkeypatch.undo()
    assert imgclf.load(model).class_names == ("blue", "green", "red")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
