"""Searches: judged on val, pruned, continued, and their best arm compared on test."""

import json

import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf.errors import UserError
from imgclf.studies import run as study
from imgclf.studies import search
from imgclf.studies.arms import Range
from imgclf.studies.search import Search
from imgclf.studies.spec import Study
from imgclf.workflows import train

pytest.importorskip("optuna")
QUIET = Console(quiet=True)
RATES = {"optimizer.learning_rate": Range(1e-4, 1.0, log=True)}


def searched(options: Search, workdir) -> dict:
    search.check(options, digits_config(), {}, 0)
    return search.run(options, digits_config(), workdir, engine="processes", jobs=1, console=QUIET)


@pytest.fixture
def bowl(monkeypatch):
    """In place of training: a val loss that is lowest at a rate of 0.01, falling over three evaluations; returns the rates tried."""
    tried = []

    def run(config, workdir, *, console=None, dataset=None, on_evaluation=None):
        assert (config.eval.split, config.eval.temperature) == ("val", False)
        rate = config.optimizer.learning_rate
        tried.append(rate)
        loss = abs(rate - 0.01)
        for evaluation in (1, 2, 3):
            if on_evaluation:
                on_evaluation(evaluation, {"val_loss": loss + 1 / evaluation, "val_top1": 0.5})
        return {"split": "val", "loss": loss, "top1": 0.5}

    monkeypatch.setattr(train, "train", run)
    return tried


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_best_trial_is_found_and_all_are_told(bowl, sampler, tmp_path):
    found = searched(Search(RATES, trials=12, sampler=sampler, fields={"train.ema": 0.0}), tmp_path)
    assert [trial["number"] for trial in found["trials"]] == list(range(12))
    best = min(bowl, key=lambda rate: abs(rate - 0.01))
    assert found["fields"] == {"train.ema": 0.0, "optimizer.learning_rate": best}
    assert found["trials"][found["best"]]["value"] == pytest.approx(abs(best - 0.01))
    assert len(set(bowl)) == 12


def test_a_grid_is_tried_whole_and_failures_do_not_end_it(bowl, tmp_path, monkeypatch):
    real = train.train

    def sometimes(config, *where, **options):
        if config.optimizer.learning_rate == 0.1:
            raise UserError("The training loss is not finite.")
        return real(config, *where, **options)

    monkeypatch.setattr(train, "train", sometimes)
    space = {"optimizer.learning_rate": (0.1, 0.01), "train.label_smoothing": (0.0, 0.1)}
    found = searched(Search(space, sampler="grid"), tmp_path)
    assert [trial["state"] for trial in found["trials"]] == ["fail", "fail", "complete", "complete"]
    assert "not finite" in found["trials"][0]["error"]
    assert found["fields"] == {"optimizer.learning_rate": 0.01, "train.label_smoothing": 0.0}
    with pytest.raises(UserError, match=r"Every trial of the search failed.*not finite"):
        searched(Search({"optimizer.learning_rate": (0.1,)}, sampler="grid"), tmp_path)


def test_hopeless_trials_are_pruned(bowl, tmp_path):
    found = searched(Search({"optimizer.learning_rate": (0.01, 0.011, 0.5, 0.6, 0.7)}, sampler="grid", pruner="asha"), tmp_path)
    states = [trial["state"] for trial in found["trials"]]
    assert (states[0], states[2:]) == ("complete", ["pruned"] * 3)
    assert found["fields"] == {"optimizer.learning_rate": 0.01}


def test_a_search_that_was_killed_goes_on_where_it_was(bowl, tmp_path, monkeypatch):
    real = train.train

    def killed(config, *where, **options):
        if len(bowl) == 3:
            raise KeyboardInterrupt
        return real(config, *where, **options)

    options = Search(RATES, trials=6)
    monkeypatch.setattr(train, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        searched(options, tmp_path)
    monkeypatch.setattr(train, "train", real)
    found = searched(options, tmp_path)
    assert len(bowl) == 6  # none of them twice
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 6
    assert searched(options, tmp_path) == found
    assert len(bowl) == 6


@pytest.mark.parametrize(
    ("options", "folds", "message"),
    [
        ({"space": {"optimizer.learning_rat": (0.1,)}}, 0, "no config field 'optimizer.learning_rat'"),
        ({"space": {"train.ema": Range(0.5, 2.0)}}, 0, "config.train.ema=2.0 is not valid"),
        ({"space": {}}, 0, "nothing to try"),
        ({"sampler": "tpee"}, 0, "did you mean 'tpe'"),
        ({"sampler": "grid"}, 0, "sampler='grid' needs values for 'optimizer.learning_rate'"),
        ({"name": "base"}, 0, "name='base' is that of an arm"),
        ({}, 3, "other folds test"),
    ],
)
def test_slips_are_refused_before_anything_runs(options, folds, message, tmp_path):
    asked = Study(digits_config(), {"base": {}}, seeds=2, folds=folds, search=Search(**({"space": RATES} | options)))
    with pytest.raises(UserError, match=message):
        study.run(asked, tmp_path, console=QUIET)
    assert not list(tmp_path.iterdir())


def test_a_real_training_is_pruned_at_its_first_evaluation(tmp_path):
    few = {"train.duration": "18 steps", "train.eval_every": "6 steps", "train.checkpoint_every": "100%", "train.ema": 0.0}
    options = Search({"optimizer.learning_rate": (0.02, 1e-9)}, sampler="grid", pruner="asha")
    search.check(options, digits_config(**few), {}, 0)
    found = search.run(options, digits_config(**few), tmp_path, engine="processes", jobs=1, console=QUIET)
    assert [trial["state"] for trial in found["trials"]] == ["complete", "pruned"]
    assert found["fields"] == {"optimizer.learning_rate": 0.02}
    evaluations = []
    for trial in found["trials"]:
        lines = [json.loads(line) for line in (tmp_path / trial["folder"] / "metrics.jsonl").read_text().splitlines()]
        evaluations.append([line["step"] for line in lines if "val_loss" in line])
    assert evaluations == [[6, 12, 18], [6]]
    assert json.loads((tmp_path / found["trials"][0]["folder"] / "results.json").read_text())["split"] == "val"
    assert not (tmp_path / found["trials"][1]["folder"] / "results.json").exists()


@pytest.mark.slow
def test_a_study_with_a_search_of_its_own(tmp_path):
    base = digits_config(
        **{"train.duration": "60 steps", "train.eval_every": "10 steps", "train.checkpoint_every": "100%", "train.ema": 0.0}
    )
    options = Search({"optimizer.learning_rate": Range(1e-6, 0.1, log=True)}, trials=8, pruner="asha")
    asked = Study(base, {"still": {"optimizer.learning_rate": 1e-7}}, seeds=2, search=options)
    summary = study.run(asked, tmp_path, jobs=2, console=QUIET)
    states = [trial["state"] for trial in summary["search"]["trials"]]
    assert "pruned" in states
    assert summary["best"]["arm"] == "found"
    assert summary["comparisons"]["found"]["difference"] > 0.1
    assert 'aria-label="trials"' in (tmp_path / "study.html").read_text()
    for trial in summary["search"]["trials"]:
        results = tmp_path / trial["folder"] / "results.json"
        assert (json.loads(results.read_text())["split"] == "val") if trial["state"] == "complete" else not results.exists()
