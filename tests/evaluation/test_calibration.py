"""Temperature scaling. The calibration error itself is tested with the metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from imgclf.evaluation import calibration, results


def drawn(temperature: float, n: int, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true temperature is the one given."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (n, classes))
    labels = (softmax(honest, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return (honest * temperature).astype(np.float32), labels


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 6), st.integers(0, 1000))
def test_the_temperature_that_made_the_logits_is_found(temperature, seed):
    logits, labels = drawn(temperature, 4000, seed=seed)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.12)


def test_it_lowers_the_calibration_error_on_other_images_and_changes_no_prediction():
    logits, labels = drawn(3.0, 4000)
    temperature = calibration.fit_temperature(logits[:1000], labels[:1000])
    plain, scaled = calibration.probabilities(logits[1000:]), calibration.probabilities(logits[1000:], temperature)
    np.testing.assert_array_equal(plain.argmax(1), scaled.argmax(1))
    before, after = (calibration.expected_calibration_error(p.max(1), p.argmax(1) == labels[1000:])[0] for p in (plain, scaled))
    assert before > 0.15
    assert after < 0.03


def test_a_few_images_all_right_do_not_claim_certainty():
    logits = np.eye(3, dtype=np.float32).repeat(10, axis=0) * 4
    labels = np.arange(3).repeat(10)
    assert calibration.fit_temperature(logits, labels, prior_sd=np.inf) < 0.2  # where the loss is 0 in float64
    temperature = calibration.fit_temperature(logits, labels)
    assert 0.5 < temperature < 1
    assert calibration.fit_temperature(logits[:10], labels[:10]) > temperature
    wrong = calibration.fit_temperature(logits, (labels + 1) % 3)
    assert 1 < wrong < 20


def test_the_prior_hardly_moves_what_many_images_say():
    logits, labels = drawn(3.0, 4000)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(calibration.fit_temperature(logits, labels, np.inf), rel=0.005)


def test_rows_do_not_depend_on_each_other(monkeypatch):
    logits, labels = drawn(2.0, 50)
    whole, fitted = calibration.probabilities(logits, 1.7), calibration.fit_temperature(logits, labels)
    np.testing.assert_allclose(whole, softmax(logits.astype(np.float64) / 1.7, axis=1), rtol=1e-6)
    assert whole.dtype == np.float32
    monkeypatch.setattr(calibration, "_BLOCK", 15)
    np.testing.assert_array_equal(calibration.probabilities(logits, 1.7), whole)
    np.testing.assert_array_equal(calibration.probabilities(logits[7:8], 1.7), whole[7:8])
    assert calibration.fit_temperature(logits, labels) == fitted
    assert calibration.probabilities(logits[:0]).shape == (0, 5)


def test_nothing_can_be_fitted_to_no_images():
    with pytest.raises(ValueError, match="no examples"):
        calibration.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int))


def entries(split="test", val=True, **changes):
    logits, labels = drawn(3.0, 500)
    options = {"temperature": True, "alpha": 0.1, "val_chose_epoch": False} | changes
    judged, fitted_on = results.Judged(split, logits[:300], labels[:300]), results.Judged("val", logits[300:], labels[300:])
    probabilities, found = results.calibrate(judged, fitted_on if val else None, **options)
    np.testing.assert_array_equal(probabilities, calibration.probabilities(logits[:300], found["temperature"]))
    return found


def test_what_a_run_says_of_its_calibration():
    found = entries()
    assert found["temperature"] == pytest.approx(3, rel=0.3)
    assert found["calibration"] == {"split": "val", "n": 200, "note": "Fitted on val."} | {
        key: found["calibration"][key] for key in ("ece_uncalibrated", "loss_uncalibrated")
    }
    logits, labels = drawn(3.0, 500)
    plain = calibration.probabilities(logits[:300])
    assert found["calibration"]["loss_uncalibrated"] == pytest.approx(-np.log(plain[np.arange(300), labels[:300]].astype(float)).mean())
    assert "also chose the epoch" in entries(val_chose_epoch=True)["calibration"]["note"]
    assert "optimistic" in entries(split="val")["calibration"]["note"]
    assert entries(temperature=False) | {"conformal": 0} == {
        "temperature": 1.0,
        "calibration": entries(temperature=False)["calibration"]
        | {"split": None, "n": 0, "note": "Not fitted: config.eval.temperature is False."},
        "conformal": 0,
    }
    alone = entries(val=False)
    assert alone["temperature"] == 1.0
    assert alone["calibration"]["note"] == "Not fitted: there is no val split."
    assert alone["conformal"] is None


def test_what_a_run_says_of_its_sets():
    sets = entries()["conformal"]
    assert (sets["alpha"], sets["n"], sets["note"]) == (0.1, 200, None)
    assert 0 < sets["threshold"] < 1
    assert sets["coverage_ci95"][0] < sets["coverage"] < sets["coverage_ci95"][1]
    assert 0.84 < sets["coverage"] < 0.96
    assert 1 <= sets["mean_size"] <= 5
    assert entries(split="val")["conformal"]["coverage"] is None  # on what it was calibrated with it says nothing
    assert entries(alpha=0.0)["conformal"] is None
    few = entries(alpha=0.001)["conformal"]
    assert few["threshold"] == 1
    assert few["note"] == "200 val images are too few for alpha 0.001: every set holds all classes."
    assert (few["coverage"], few["mean_size"]) == (1.0, 5.0)
