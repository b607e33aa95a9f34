"""The page of a study's arms under corruptions: its figures are those of robustness.json, names are escaped."""

import importlib.util
import json

import numpy as np
import pytest

from imgclf.evaluation import robustness
from imgclf.reporting import robustness as page


@pytest.fixture(scope="module")
def experiment(root):
    spec = importlib.util.spec_from_file_location("robustness_experiment", root / "experiments" / "robustness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_arms_are_compared_by_their_means_and_shown(experiment, tmp_path):
    rng = np.random.default_rng(3)
    tested = robustness.conditions(["jpeg", "contrast"], [1, 5])
    arms = {
        name: {condition: rng.random((2, 80)) < share for condition in tested} for name, share in (("none", 0.5), ("<b>", 0.7), ("c", 0.5))
    }
    comparisons = experiment.compare_means(arms, "none")
    means = {
        name: np.mean([right for condition, right in correct.items() if condition != robustness.CLEAN]) for name, correct in arms.items()
    }
    assert comparisons["<b>"]["difference"] == pytest.approx(means["<b>"] - means["none"])
    assert not comparisons["<b>"]["tie"]
    assert comparisons["c"]["tie"]
    assert comparisons["c"]["p_holm"] >= comparisons["c"]["p"]
    oriented = {"orientations": {"images": 8, "same": 8, "largest_difference": 0.01}}
    results = {
        "question": "Which?",
        "data": "folder:photos",
        "baseline": "none",
        "seeds": 2,
        "n": 80,
        "arms": {name: robustness.summarize(correct) | oriented for name, correct in arms.items()},
        "comparisons": comparisons,
    }
    text = page.write_study(tmp_path, results).read_text()
    assert json.loads((tmp_path / "robustness.json").read_text()) == results
    assert text.count("<svg") == 4
    assert "&lt;b&gt;" in text
    assert '<th scope="row" class="name"><b>' not in text
    assert f"{100 * comparisons['<b>']['difference']:+.1f}" in text
