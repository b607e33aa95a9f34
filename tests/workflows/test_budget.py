"""`imgclf.create` within a time limit: what is tried, what is kept, how it ends and continues."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from color_images import QUICK
from rich.console import Console
from typer.testing import CliRunner

import imgclf
from imgclf import config as config_lib
from imgclf.cli import commands
from imgclf.errors import UserError
from imgclf.reporting import leaderboard
from imgclf.workflows import budget, candidates, create, train
from imgclf.workflows.time_limit import TimeLimit

ONLY_UNIT_LENGTH = {"eval.views": "plain", "data.resize": "squash", "train.method": "probe"}  # fields that leave one other thing to try


@pytest.fixture(scope="module")
def wishes(tiny_weights):
    options = {"model": "mobilenet_v2_tiny", "weights": tiny_weights("mobilenet_v2_tiny"), "verbose": False}
    return options | {"config": QUICK | ONLY_UNIT_LENGTH}


@pytest.fixture(scope="module")
def data(color_folder):
    return imgclf.load_images(color_folder, verbose=False)


@pytest.fixture(scope="module")
def made(data, wishes, tmp_path_factory):
    return imgclf.create(data, time_limit="10 minutes", workdir=tmp_path_factory.mktemp("budget") / "run", **wishes)


def test_the_leaderboard_tells_of_all_that_was_tried_and_one_is_kept(made):
    table = made.leaderboard()
    assert table["name"].tolist() == ["probe", "unit-length"]
    assert table["kept"].sum() == 1
    assert table["n"].tolist() == [75, 75]
    assert (table["judged_on"] == "folds").all()
    assert ((table["low"] <= table["top1"]) & (table["top1"] <= table["high"])).all()
    assert (table[["seconds", "parameters", "images_per_second"]] > 0).all().all()
    page = (made.folder / "report.html").read_text()
    assert "unit-length" in page
    assert "What was tried in" in page
    notes = json.loads((made.folder / "results.json").read_text())["notes"]
    assert "Chosen among 2 candidates in 10 min, on the images of this score; see the leaderboard." in notes
    kept = table["name"][table["kept"]].item()
    results = [json.loads((folder / "results.json").read_text()) for folder in (made.folder, made.folder / "candidates" / kept)]
    assert results[0]["params_sha256"] == results[1]["params_sha256"]
    loser = table["name"][~table["kept"]].item()
    assert not (made.folder / "candidates" / loser / "checkpoints").exists()


def test_the_leaderboard_on_the_command_line(made, tmp_path):
    table = tmp_path / "tried.csv"
    lines = CliRunner().invoke(commands.app, ["leaderboard", str(made.folder), "--out", str(table)]).stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["CANDIDATE", "probe", "unit-length"]
    assert sum("  kept  " in line for line in lines[1:3]) == 1
    assert "of 10 min." in lines[3]
    assert pd.read_csv(table)["name"].tolist() == ["probe", "unit-length"]


def test_what_is_kept_later_leaves_the_page_of_scenes_which_the_first_has_found(tmp_path):
    for name in ("probe", "flip"):
        (tmp_path / "candidates" / name).mkdir(parents=True)
        for file in ("scenes.html", "results.json"):
            (tmp_path / "candidates" / name / file).write_text(name)
    asked = budget.Asked(config_lib.default_config(), None, {}, {})
    search = budget._Search(asked, tmp_path, TimeLimit(60.0), Console(quiet=True), [])
    for name in ("probe", "flip"):
        search._publish(budget.Row(name, "", {}))
    assert [(tmp_path / file).read_text() for file in ("scenes.html", "results.json")] == ["probe", "flip"]


def test_the_config_repeats_what_was_decided_without_a_clock(made, tmp_path):
    again = train.train(made.folder / "config.json", tmp_path / "again", console=Console(quiet=True))
    assert again["params_sha256"] == json.loads((made.folder / "results.json").read_text())["params_sha256"]


@pytest.mark.slow
def test_a_saved_model_keeps_the_leaderboard_and_another_run_has_none(made, color_classifier, tmp_path):
    assert imgclf.load(made.save(tmp_path / "model")).leaderboard().equals(made.leaderboard())
    with pytest.raises(UserError, match="had no time limit"):
        color_classifier[0].leaderboard()


@pytest.mark.slow
def test_a_search_that_was_killed_continues(made, data, wishes, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(made.folder, run)
    saved = json.loads((run / leaderboard.FILE).read_text())
    first = next(row for row in saved["rows"] if row["kept"])  # the one whose model is still there
    saved["rows"] = [first | {"decision": "kept"}]
    (run / leaderboard.FILE).write_text(json.dumps(saved))
    for other in {"probe", "unit-length"} - {first["name"]}:
        shutil.rmtree(run / "candidates" / other)
    trained = []
    plain = train.train
    monkeypatch.setattr(
        train, "train", lambda config, folder, **options: (trained.append(folder.name), plain(config, folder, **options))[1]
    )
    found = imgclf.create(data, time_limit="10 minutes", workdir=run, **wishes).leaderboard()
    assert set(found["name"]) == {"probe", "unit-length"}
    assert trained == [name for name in ("probe", "unit-length") if name != first["name"]]
    assert json.loads((run / leaderboard.FILE).read_text())["seconds"] > saved["seconds"]
    with pytest.raises(UserError, match=r"began with another config: config\.seed was 0, now 1"):
        imgclf.create(data, time_limit="10 minutes", workdir=run, **(wishes | {"config": wishes["config"] | {"seed": 1}}))


@pytest.mark.slow
def test_a_limit_too_short_for_anything_leaves_the_probe(data, wishes, tmp_path, color_classifier):
    found = imgclf.create(data, time_limit=0.01, workdir=tmp_path / "run", **wishes)
    table = found.leaderboard()
    assert table["kept"].tolist() == [True, False]
    assert table["decision"][1].startswith("not tried: about")
    assert found.predict(data[:2])["predicted"].isin(data.class_names).all()
    run = tmp_path / "other"
    shutil.copytree(color_classifier[0].folder, run)
    with pytest.raises(UserError, match="holds a run that had no time limit"):
        imgclf.create(data, time_limit="1 minute", workdir=run, **wishes)
    with pytest.raises(UserError, match="time_limit='soon' is no time"):
        imgclf.create(data, time_limit="soon", **wishes)


@pytest.mark.slow
def test_training_from_scratch_ends_with_the_time(data, tmp_path):
    fields = QUICK | {"train.duration": "100000 epochs", "model.cnn.widths": (4,)}
    found = imgclf.create(data, model="cnn", time_limit="8 s", workdir=tmp_path / "run", config=fields, verbose=False)
    table = found.leaderboard()
    assert table["name"].tolist() == ["training"]
    assert table["judged_on"].tolist() == ["val"]
    assert config_lib.from_json((tmp_path / "run" / "config.json").read_text()).train.stop_after.endswith(" steps")


@pytest.mark.slow
def test_fine_tuning_is_judged_on_val_and_ends_with_the_time(data, wishes, tmp_path):
    named = {name: wishes[name] for name in ("model", "weights")}
    choice = create.settle(data.dataset, data.fields, method="probe", overrides=QUICK | {"data.resize": "squash"}, **named)
    fixed = {"data.resize": "squash", "model.head.normalize": False}
    asked = budget.Asked(choice.config, choice.dataset, fixed, {"optimizer.learning_rate": 1e-3})
    budget.search(asked, tmp_path / "run", 240, Console(quiet=True))
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / leaderboard.FILE).read_text())["rows"]}
    assert rows["fine-tuning"]["judged_on"] == "val"
    assert rows["fine-tuning"]["n"] == 15
    assert "of 15 right" in rows["fine-tuning"]["decision"]


def settled(tiny_weights, **fields):
    config = config_lib.default_config()
    weights = tiny_weights("mobilenet_v2_tiny")
    config_lib.override(config, {"model.name": "mobilenet_v2_tiny", "model.weights": weights, "train.method": "probe"} | fields)
    return config


def test_the_cheap_comes_before_the_dear_and_the_user_is_heeded(tiny_weights):
    config = settled(tiny_weights, **{"data.resize": "weights"})
    found = candidates.candidates(config, {}, {"optimizer.learning_rate": 1e-4})
    assert [one.name for one in found] == ["unit-length", "squash", "pad", "flip", "framings", "crops", "fine-tuning", "layer-decay"]
    assert found[-1].fields["optimizer.layer_decay"] < 1
    names = [one.name for one in candidates.candidates(config, {"eval.views": "flip", "seed": 1}, {})]
    assert names == ["unit-length", "squash", "pad"]
    assert [one.name for one in candidates.candidates(config, {"train.method": "probe", "data.resize": "pad"}, {})] == [
        *("unit-length", "flip", "framings", "crops")
    ]
    assert candidates.candidates(settled(tiny_weights, **{"train.method": "fit"}), {}, {}) == []


def test_epochs_fit_into_the_time_left():
    speed = candidates.Speed(image=0.01, run=5, compiling=10)
    for left in (10, 60, 300, 100_000):
        epochs = speed.epochs(600, left)
        assert 0 <= epochs <= candidates.MOST_EPOCHS
        assert not epochs or 15 + 6 + epochs * 600 * 0.01 * (0.8 * 4 + 0.2) <= left
    assert speed.epochs(600, 10) == 0
    assert speed.seconds(candidates.Candidate("a", "", {}, views=2), 100) == pytest.approx(5 + 2)
    assert speed.seconds(candidates.Candidate("a", "", {}, views=1), 100, "crops") == pytest.approx(5 + 6)


@pytest.mark.parametrize(
    ("gain", "fields", "kept"),
    [(0.5, {}, True), (0.001, {}, False), (-0.5, {}, False), (0.5, {"eval.views": "flip"}, False)],
)
def test_only_what_is_better_beyond_noise_is_kept(gain, fields, kept, tmp_path):
    rng = np.random.default_rng(0)
    asked = budget.Asked(config_lib.default_config(), None, {}, {})
    row = budget.Row("new", "", fields, n=100)
    search = budget._Search(asked, tmp_path, TimeLimit(60), Console(quiet=True), [budget.Row("probe", "", {}, kept=True, n=100), row])
    loss, right = rng.uniform(1, 2, 100), np.arange(100) < 80
    for name, values in (("probe", loss), ("new", loss - gain + rng.normal(0, 0.1, 100))):
        search._judged[name] = pd.DataFrame({"right": right, "loss": values, "group": range(100)}, index=[f"{i}.jpg" for i in range(100)])
    assert search._is_better(row) is kept  # views cost more, and get no more images right
    assert row.decision.startswith("kept" if kept else "not better" if gain < 0 else "no more right" if fields else "within noise")
    assert "+0 of 100 right" in row.decision
