"""A finished run in use: the predictions are those of its evaluation."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import imgclf
from imgclf import config as config_lib
from imgclf import experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photo_folder):
    config = config_lib.default_config()
    config.data.path = str(photo_folder)
    config.data.image_size, config.data.resize = (24, 32), "pad"
    config.data.split.fractions = (0.5, 0.25, 0.25)
    config.loader.batch_size = config.loader.eval_batch_size = 8
    config.model.cnn.widths = (8,)
    config.train.duration, config.augment.flip = "4 steps", 0.5
    run = tmp_path_factory.mktemp("run") / "run"
    return run, experiment.run(config, run)


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory):
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, channel in (("red", 0), ("green", 1), ("blue", 2)):
        (folder / name).mkdir()
        for i in range(8):
            pixels = rng.integers(0, 128, (30 + i, 50, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_predictions_equal_those_of_the_evaluation(finished, photo_folder):
    run, _ = finished
    table = pd.read_csv(run / "predictions.csv")
    predicted = imgclf.load(run).predict([photo_folder / name for name in table["id"]], batch_size=5)
    assert predicted["predicted"].tolist() == table["predicted"].tolist()
    np.testing.assert_allclose(predicted["probability"], table["probability"], rtol=1e-4)


def test_arrays_and_paths_agree(finished, photo_folder):
    from PIL import Image

    classifier = imgclf.load(finished[0])
    path = photo_folder / "red" / "3.png"
    from_path = classifier.predict(path)
    from_array = classifier.predict([np.asarray(Image.open(path))])
    np.testing.assert_allclose(from_path["probability"], from_array["probability"], rtol=1e-6)
    assert from_path["id"].tolist() == [str(path)]
    assert list(from_path.columns[:3]) == ["id", "predicted", "probability"]
    assert classifier.class_names == ("blue", "green", "red")
    assert classifier.predict([path, path])["id"].tolist() == [str(path)] * 2
    probabilities = classifier.predict_probabilities([path] * 3)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_what_is_no_image_is_named(finished, tmp_path):
    (tmp_path / "note.jpg").write_text("not a picture")
    classifier = imgclf.load(finished[0])
    for path in (tmp_path / "note.jpg", tmp_path / "absent.jpg"):
        with pytest.raises(imgclf.UserError, match=path.name):
            classifier.predict(path)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(imgclf.UserError, match=r"not a finished run.*--workdir"):
        imgclf.load(tmp_path)


def test_a_damaged_model_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    kept = run / json.loads((run / "results.json").read_text())["checkpoint"]
    for file in kept.glob("**/d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    with pytest.raises(imgclf.UserError, match="is damaged"):
        imgclf.load(run)
