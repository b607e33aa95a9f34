"""Verdicts: to the bit on machines of one kind, within bounds on others."""

import pandas as pd
import pytest

from imgclf.publishing import comparison

HERE = {
    "cpu": "A",
    "cpu_features": ["avx2"],
    "cpu_count": 2,
    "devices": ["cpu:0"],
    "xla_flags": "",
    "packages": {"jax": "1"},
    "python": "3",
}
RESULTS = {
    "top1": 0.8,
    "top1_ci95": [0.7, 0.9],
    "loss": 0.5,
    "ece": 0.1,
    "temperature": 1.0,
    "n": 3,
    "split": "test",
    "params_sha256": "a" * 64,
}


def predictions(path, rows):
    pd.DataFrame(rows, columns=["id", "predicted", "probability"]).to_csv(path, index=False)
    return path


@pytest.fixture
def then(tmp_path):
    return predictions(tmp_path / "then.csv", [("a", "cat", 0.9), ("b", "dog", 0.6), ("c", "cat", 0.55)])


def test_machines_of_one_kind():
    assert comparison.machines(HERE, dict(HERE)) == []
    assert "bits must be equal" in comparison.of_machines([]).told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "B"}, "cpu A, now B"),
        ({"cpu_count": 8}, "cpu_count 2, now 8"),
        ({"cpu_features": []}, "other instruction sets"),
        ({"packages": {}}, "jax 1, now none"),
        ({"xla_flags": "--x"}, "xla_flags , now --x"),
    ],
)
def test_machines_of_another_kind(change, told):
    assert comparison.machines(HERE, HERE | change) == [told]


def test_a_run_that_did_not_note_its_cpu_is_of_no_known_kind():
    old = {name: value for name, value in HERE.items() if not name.startswith("cpu_f") and name != "cpu"}
    assert comparison.machines(old, HERE) == ["the run has not noted its cpu", "the run has not noted its cpu_features"]
    assert comparison.of_machines(comparison.machines(old, HERE)).told.startswith(
        "not known to be the run's (the run has not noted its cpu;"
    )
    assert comparison.of_machines(comparison.machines(old, HERE | {"python": "4"})).told.startswith("another one than the run's (")


@pytest.mark.parametrize("same_machine", [True, False])
def test_equal_predictions(then, same_machine):
    verdict = comparison.of_predictions(then, then, same_machine=same_machine)
    assert (verdict.outcome, verdict.told) == ("equal", "all 3 equal, to the last digit")


def test_close_predictions_pass_on_another_machine_only(then, tmp_path):
    now = predictions(tmp_path / "now.csv", [("a", "cat", 0.9), ("b", "dog", 0.60001), ("c", "cat", 0.55)])
    assert comparison.of_predictions(then, now, same_machine=False).outcome == "close"
    strict = comparison.of_predictions(then, now, same_machine=True)
    assert strict.outcome == "differs"
    assert strict.told.startswith("2 of 3 equal, to the last digit; the same class for 100")


def test_other_predictions_fail_everywhere(then, tmp_path):
    far = predictions(tmp_path / "far.csv", [("a", "cat", 0.9), ("b", "dog", 0.62), ("c", "cat", 0.55)])
    assert comparison.of_predictions(then, far, same_machine=False).outcome == "differs"
    flipped = predictions(tmp_path / "flipped.csv", [("a", "cat", 0.9), ("b", "cat", 0.6), ("c", "cat", 0.55)])
    assert comparison.of_predictions(then, flipped, same_machine=False).outcome == "differs"


def test_lacking_predictions_are_counted(then, tmp_path):
    fewer = predictions(tmp_path / "fewer.csv", [("a", "cat", 0.9)])
    verdict = comparison.of_predictions(then, fewer, same_machine=False)
    assert verdict.outcome == "missing"
    assert "2 predictions of 3 could not be made" in verdict.told
    assert not verdict.passed
    none = predictions(tmp_path / "none.csv", [("z", "cat", 0.9)])
    assert comparison.of_predictions(then, none, same_machine=False).outcome == "differs"


def test_results():
    assert comparison.of_results(RESULTS, dict(RESULTS), same_machine=True).outcome == "equal"
    moved = RESULTS | {"loss": 0.50001}
    assert comparison.of_results(RESULTS, moved, same_machine=True).outcome == "differs"
    assert comparison.of_results(RESULTS, moved, same_machine=False).outcome == "close"
    assert comparison.of_results(RESULTS, RESULTS | {"top1": 0.6}, same_machine=False).outcome == "differs"


def test_training():
    assert comparison.of_training(RESULTS, RESULTS | {"top1": 0.1}, same_machine=True).outcome == "equal"
    other = RESULTS | {"params_sha256": "b" * 64}
    assert comparison.of_training(RESULTS, other, same_machine=True).outcome == "differs"
    assert comparison.of_training(RESULTS, other, same_machine=False).outcome == "close"
    assert comparison.of_training(RESULTS, other | {"top1": 0.95}, same_machine=False).outcome == "differs"


def test_images():
    assert comparison.of_images(5, {}).passed
    verdict = comparison.of_images(5, {"a": "missing"})
    assert (verdict.outcome, verdict.told) == ("missing", "1 of 5 could not be had as they were: a (missing)")
