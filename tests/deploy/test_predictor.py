"""A finished run in use: the predictions are those of its evaluation."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import imgclf
from imgclf.deploy import predictor


def test_predictions_equal_those_of_the_evaluation(finished, photo_folder):
    run, _ = finished
    table = pd.read_csv(run / "predictions.csv")
    predicted = imgclf.load(run).predict([photo_folder / name for name in table["id"]], batch_size=5)
    assert predicted["predicted"].tolist() == table["predicted"].tolist()
    np.testing.assert_allclose(predicted["probability"], table["probability"], rtol=1e-4)


def test_a_second_time_no_network_is_traced(finished, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    paths = sorted(photo_folder.rglob("*.png"))[:3]
    first = imgclf.load(finished[0]).predict_probabilities(paths)

    def traces(*_, **__):
        raise AssertionError("what was kept is not used")

    monkeypatch.setattr(predictor, "make_eval_step", traces)
    monkeypatch.setattr(predictor.models, "abstract", traces)
    again = imgclf.load(finished[0])
    assert np.array_equal(again.predict_probabilities(paths), first)
    with pytest.raises(AssertionError, match="not used"):
        again.predict_probabilities(paths[:1])  # of another shape, there is none yet


def test_arrays_and_paths_agree(finished, photo_folder):
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


def test_lists_of_any_length_and_batch_size_give_the_same(finished, photo_folder):
    classifier = imgclf.load(finished[0])
    paths = sorted(photo_folder.rglob("*.*"))
    expected = classifier.predict_probabilities(paths, batch_size=16)
    assert np.abs(expected[0] - expected[-1]).max() > 1e-3  # else order would not show
    for count, batch_size in ((1, 1), (3, 2), (5, 64), (36, 5), (36, 12)):
        np.testing.assert_allclose(classifier.predict_probabilities(paths[:count], batch_size=batch_size), expected[:count], rtol=1e-4)
    assert classifier.predict_probabilities([]).shape == (0, 3)
    assert list(classifier.predict([])["id"]) == []


def test_a_sequence_may_read_its_images_when_asked(finished, photo_folder):
    class Lazy(list):
        def __getitem__(self, row):
            return np.asarray(Image.open(super().__getitem__(row)).convert("RGB"))

    classifier, paths = imgclf.load(finished[0]), sorted(photo_folder.rglob("*.png"))[:5]
    np.testing.assert_array_equal(classifier.predict_probabilities(Lazy(paths)), classifier.predict_probabilities(paths))


@pytest.mark.parametrize(("resize", "crop_fraction"), [("squash", 1.0), ("crop", 0.875), ("pad", 1.0)])
def test_a_reduced_decode_shows_nearly_the_same(finished, tmp_path, resize, crop_fraction):
    classifier = imgclf.load(finished[0])
    config = classifier.config.copy_and_resolve_references()
    config.data.resize, config.data.crop_fraction = resize, crop_fraction
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((1200, 800), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    whole, reduced = (
        dataclasses.replace(classifier, config=config, reduced_decode=choice).predict_probabilities([tmp_path / "large.jpg"])
        for choice in (False, True)
    )
    np.testing.assert_allclose(reduced, whole, atol=0.01)
    assert (reduced != whole).any()


def test_the_temperature_of_the_run_is_applied(finished, photo_folder):
    classifier = imgclf.load(finished[0])
    assert classifier.temperature == finished[1]["temperature"] != 1
    path = photo_folder / "red" / "3.png"
    plain = dataclasses.replace(classifier, temperature=1.0).predict_probabilities([path])[0].astype(float)
    scaled = plain ** (1 / classifier.temperature)
    np.testing.assert_allclose(classifier.predict_probabilities([path])[0], scaled / scaled.sum(), rtol=1e-5)


def test_answers_below_the_threshold_and_sets(finished, photo_folder):
    classifier, paths = imgclf.load(finished[0]), sorted(photo_folder.rglob("*.*"))
    table = classifier.predict(paths, threshold=0.5, conformal=True)
    middle = float(table["probability"].median())
    table = classifier.predict(paths, threshold=middle, conformal=True)
    assert list(table.columns[:4]) == ["id", "predicted", "probability", "answer"]
    assert (table["answer"] == table["predicted"].where(table["probability"] >= middle, "unknown")).all()
    assert {"unknown"} < set(table["answer"])
    threshold = classifier.conformal.threshold
    for row in table.to_dict("records"):
        listed = {row[f"top{k}"]: 1 - np.float64(row[f"top{k}_probability"]) for k in (1, 2, 3)}
        assert row["set"] == [name for k, (name, score) in enumerate(listed.items()) if score <= threshold or k == 0]


def test_a_run_without_sets_says_how_to_get_them(finished, photo_folder):
    classifier = dataclasses.replace(imgclf.load(finished[0]), conformal=None)
    with pytest.raises(imgclf.UserError, match="no conformal threshold"):
        classifier.predict(photo_folder / "red" / "3.png", conformal=True)


def test_a_config_of_another_model_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    config = json.loads((run / "config.json").read_text())
    config["model"]["cnn"]["widths"] = [4]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(imgclf.UserError, match=r"does not fit the run's config.json and 3 classes: batch_stats/backbone/bn0/mean"):
        imgclf.load(run)


def test_another_number_of_classes_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    results = json.loads((run / "results.json").read_text())
    results["class_names"].append("yellow")
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(imgclf.UserError, match="names 4 classes, its kept model 3"):
        imgclf.load(run)


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


def test_decoders_messages_stay_out_of_the_standard_error_stream(finished, photo_folder, capfd):
    encoded = io.BytesIO()
    Image.open(photo_folder / "red" / "3.png").convert("RGB").resize((64, 64)).save(encoded, "JPEG")
    whole = encoded.getvalue()
    noisy = whole[: len(whole) * 2 // 3] + b"\xff\xd9"  # libjpeg: "Corrupt JPEG data: premature end of data segment"
    classifier = imgclf.load(finished[0])
    capfd.readouterr()
    classifier.predict([noisy], on_error="row")
    assert classifier.predict_probabilities([noisy], on_error="row").shape == (1, len(classifier.class_names))
    assert capfd.readouterr().err == ""


def test_logit_adjustment_is_an_evaluation_of_a_finished_run_and_of_its_predictions(finished, photo_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    before = json.loads((run / "results.json").read_text())
    assert before["logit_offset"] is None
    frequent = {"eval.temperature": False, "eval.conformal": 0.0}
    imgclf.train(run, run, fields=frequent)
    plain = pd.read_csv(run / "predictions.csv").set_index("id")
    counts = pd.read_parquet(run / "dataset.parquet").query("split == 'train'")["class_name"].value_counts(normalize=True)
    imgclf.train(run, run, fields=frequent | {"eval.logit_adjustment": 2.0})
    results = json.loads((run / "results.json").read_text())
    assert results["params_sha256"] == before["params_sha256"]
    names = results["class_names"]
    np.testing.assert_allclose(results["logit_offset"], -2 * np.log(counts[names]), rtol=1e-5)
    adjusted = pd.read_csv(run / "predictions.csv").set_index("id")
    np.testing.assert_allclose(
        _odds(adjusted, names) - _odds(plain, names), np.diff(results["logit_offset"])[None].repeat(len(plain), 0), atol=1e-3
    )
    again = imgclf.load(run).predict([photo_folder / name for name in adjusted.index])
    np.testing.assert_allclose(again["probability"], adjusted["probability"], rtol=1e-4)
    assert imgclf.load(run).sha256 != imgclf.load(finished[0]).sha256


def _odds(predictions: pd.DataFrame, names: list[str]) -> np.ndarray:
    """The differences between the logits of one class and the next, float64 [N, C − 1]."""
    of = [{row[f"top{k}"]: row[f"top{k}_probability"] for k in range(1, len(names) + 1)} for _, row in predictions.iterrows()]
    return np.diff(np.log([[row[name] for name in names] for row in of]), axis=1)
