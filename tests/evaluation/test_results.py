"""What a run says of itself where cross-validation takes the place of held-out images."""

import numpy as np
import pandas as pd
import pytest
import scipy.special
from sklearn.datasets import make_classification

from imgclf.config import default_config
from imgclf.data.table import Dataset
from imgclf.evaluation import calibration, conformal, metrics, results
from imgclf.evaluation.intervals import clustered, wilson
from imgclf.evaluation.results import CROSS_VALIDATION, Judged
from imgclf.probes.cross_validation import CrossValidation, fit_linear
from imgclf.training.trained_model import OutOfFold, TrainedModel, TrainProgress


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, labels = make_classification(
        n, 12, n_informative=6, n_redundant=0, n_classes=3, n_clusters_per_class=1, flip_y=0.02, class_sep=0.7, random_state=seed
    )
    return x.astype(np.float32), labels


@pytest.fixture(scope="module")
def probes():
    """Heads of 120 training images each, too weakly penalised to know how little they know; and 2,000 new images of the same kind."""
    made = []
    for seed in range(6):
        x, labels = simulated(2120, seed)
        validation = CrossValidation.create(labels[:120], None, "abc", (1e-5,), 5, seed, wanted=True)
        found = fit_linear(x[:120], labels[:120], validation)
        made.append((found.out_of_fold, labels[:120], validation.fold, x[120:] @ found.kernel + found.bias, labels[120:]))
    return made


def mean_loss(logits, labels, temperature):
    return -scipy.special.log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


def test_out_of_fold_predictions_calibrate_the_head_of_all_images(probes):
    gained, errors, told = [], [], []
    for held, labels, fold, new, truth in probes:
        judged = Judged(CROSS_VALIDATION, held, labels, fold)
        probabilities, found = results.calibrate(judged, judged, temperature=True, alpha=0.1, val_chose_epoch=False)
        assert found["temperature"] > 1.2  # overconfident
        gained.append(mean_loss(new, truth, 1.0) - mean_loss(new, truth, found["temperature"]))
        said = calibration.probabilities(new, found["temperature"])
        errors.append(calibration.expected_calibration_error(said.max(1), said.argmax(1) == truth)[0])
        told.append(metrics.compute(probabilities, labels, list("abc"))["top1"] - (said.argmax(1) == truth).mean())
    assert np.mean(gained) > 0.05
    assert np.mean(errors) < 0.08
    assert abs(np.mean(told)) < 0.04  # the score of cross-validation is that on new images


def test_no_label_touches_its_own_probabilities(probes):
    held, labels, fold, *_ = probes[0]
    judged = Judged(CROSS_VALIDATION, held, labels, fold)
    options = {"temperature": True, "alpha": 0.1, "val_chose_epoch": False}
    probabilities, _ = results.calibrate(judged, judged, **options)
    other = np.where(fold == 2, (labels + 1) % 3, labels)
    changed = Judged(CROSS_VALIDATION, held, other, fold)
    again, _ = results.calibrate(changed, changed, **options)
    np.testing.assert_array_equal(again[fold == 2], probabilities[fold == 2])
    assert not np.array_equal(again[fold != 2], probabilities[fold != 2])


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_sets_hold_the_truth_about_as_often_as_they_say(probes, alpha):
    covered, told = [], []
    for held, labels, fold, new, truth in probes:
        judged = Judged(CROSS_VALIDATION, held, labels, fold)
        _, found = results.calibrate(judged, judged, temperature=True, alpha=alpha, val_chose_epoch=False)
        rule = found["conformal"]
        assert (rule["split"], rule["n"]) == (CROSS_VALIDATION, 120)
        assert f"{1 - 2 * alpha:.0%} in the worst case" in rule["promise"]
        sets = conformal.sets(calibration.probabilities(new, found["temperature"]), rule["threshold"])
        covered.append(sets[np.arange(len(truth)), truth].mean())
        told.append(rule["coverage"])
    assert min(covered) >= 1 - 2 * alpha
    assert np.mean(covered) == pytest.approx(1 - alpha, abs=0.06)
    assert np.mean(told) == pytest.approx(np.mean(covered), abs=0.06)


def test_images_of_one_group_count_as_fewer():
    rng = np.random.default_rng(0)
    correct = rng.random(60) < 0.8
    copies, groups = np.repeat(correct, 5), np.repeat(np.arange(60), 5)
    np.testing.assert_allclose(clustered(copies, groups), wilson(correct.sum(), 60), atol=0.005)
    np.testing.assert_allclose(clustered(correct, np.arange(60)), wilson(correct.sum(), 60), atol=0.005)
    assert clustered(np.ones(50, bool), np.repeat(np.arange(10), 5)) == wilson(10, 10)
    covered = 0
    for _ in range(200):
        of_scene = rng.beta(1.5, 0.5, 40)
        groups = np.repeat(np.arange(40), 6)
        low, high = clustered(rng.random(240) < of_scene[groups], groups)
        covered += low <= 0.75 <= high
    assert covered >= 182  # of images as if they were alone: about 150


def test_a_score_on_new_scenes_stands_beside_one_where_scenes_repeat(tmp_path):
    rng = np.random.default_rng(0)
    labels, scenes = np.repeat(np.arange(2), 60), np.repeat(np.arange(24), 5)
    names = ["even", "odd"]
    table = pd.DataFrame(
        {"id": [f"{row}.png" for row in range(120)], "label": labels, "class_name": np.array(names)[labels], "split": "train", "group": ""}
    )
    table["scene"] = [f"s{scene}" for scene in scenes]
    right = rng.random(120) < 0.7
    logits = np.where((np.arange(2) == labels[:, None]) == right[:, None], 2.0, -2.0).astype(np.float32)
    repeats = np.where(np.arange(2) == labels[:, None], 2.0, -2.0).astype(np.float32)
    held = OutOfFold(np.arange(120), logits, scenes % 5, repeats)
    held.save(tmp_path / "held.npz")
    trained = TrainedModel({}, {}, {"params_sha256": ""}, TrainProgress(), 0, lambda split: (), OutOfFold.load(tmp_path / "held.npz"))
    dataset = Dataset(table, tuple(names), [], pd.DataFrame(), {})
    found, _ = results.score(default_config(), dataset, trained, {"dropped": []})
    assert found["estimates"]["new_scenes"]["top1"] == found["top1"] == right.mean()
    assert found["estimates"]["scenes_repeat"]["top1"] == 1
    assert found["top1_groups"] == 24
    assert "in cross-validation on new scenes); 100 % where scenes may repeat" in metrics.headline(found).replace("\xa0", " ")
