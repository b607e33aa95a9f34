"""Scenes from files to splits, pages and tables: by capture times with tiny photos, by real weights with planted bursts."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import imgclf
from imgclf.cli.commands import app
from imgclf.config import default_config
from imgclf.data.prepare import load_path, prepare
from imgclf.data.scenes import Scenes
from imgclf.data.splits import groups_of
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.probes import scenes
from imgclf.probes.cross_validation import CrossValidation

QUIET = Console(quiet=True)
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="session")
def bursts(tmp_path_factory) -> Path:
    """Two classes of ten bursts of three photos by one camera, and three photos without EXIF each."""
    root, number = tmp_path_factory.mktemp("bursts") / "photos", 0
    for name, channel in (("red", 0), ("blue", 2)):
        (root / name).mkdir(parents=True)
        for scene in range(11):
            for shot in range(3):
                rng = np.random.default_rng(number)
                pixels = rng.integers(0, 156, (20, 24, 3), dtype=np.uint8)
                pixels[..., channel] += 90
                exif = Image.Exif()
                if scene < 10:
                    exif[0x0110] = "Lumix"
                    exif.get_ifd(0x8769)[0x9003] = f"2024:05:{1 + channel:02} 12:{scene:02}:{2 * shot:02}"
                Image.fromarray(pixels).save(root / name / f"{scene:02}{'abc'[shot]}.jpg", exif=exif)
                number += 1
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))


def fields(**more) -> dict:
    small = {
        "data.image_size": 16,
        "loader.batch_size": 8,
        "loader.threads": 1,
        "model.cnn.widths": (4,),
        "train.duration": "2 steps",
        "eval.explain": 0,
    }
    return small | {"augment.crop_scale": (1.0, 1.0), "train.log_every": "1 steps", **more}


def test_what_a_newcomer_gets_wrong_is_told(bursts, tmp_path):
    with pytest.raises(UserError, match=r"There is no folder or table '.*photo' \(in .*\); did you mean 'photos'\?"):
        imgclf.find_scenes(bursts.with_name("photo"), console=QUIET)
    with pytest.raises(UserError, match=r"^weights='keras/mobilenet' are no known weights"):
        imgclf.find_scenes(bursts, weights="keras/mobilenet", console=QUIET)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scenes.csv").write_text("path,label\n")
    with pytest.raises(UserError, match="from an earlier search, perhaps with your corrections"):
        imgclf.find_scenes(bursts, out=tmp_path / "out", console=QUIET)
    pd.DataFrame({"path": [str(bursts / "red" / "00a.jpg")], "label": ["red"]}).to_csv(tmp_path / "scenes.csv")
    with pytest.raises(UserError, match="has no column 'scene'"):
        load_path(tmp_path / "scenes.csv")


def test_a_search_leaves_a_page_and_a_table_that_trains(bursts, tmp_path):
    found = imgclf.find_scenes(bursts, out=tmp_path / "out", console=QUIET)
    assert found.sentence == "Found 20 scenes of 3 shots among 66 photos (60 of them); the shots of each stay on one side."
    assert found.scenes == 20
    assert found.notes == (
        "Without weights only capture times tell scenes, and 60 photos have a capture time: name weights (`imgclf models`), whose features "
        "tell more.",
    )
    assert "taken within a minute by one camera" in found.page.read_text()
    dataset, _ = load_path(found.csv, root=str(bursts))
    assert (dataset.table["scene"] != "").sum() == 60
    with pytest.raises(UserError, match=r"scenes\.csv"):  # which may hold corrections
        imgclf.find_scenes(bursts, out=tmp_path / "out", console=QUIET)
    imgclf.find_scenes(bursts, out=tmp_path / "out", overwrite=True, console=QUIET)
    corrected = pd.read_csv(found.csv, keep_default_na=False)
    corrected.loc[corrected["label"] == "red", "scene"] = ""
    corrected.to_csv(tmp_path / "corrected.csv", index=False)
    config = default_config()
    config.data.source, config.data.path, config.data.root = "csv", str(tmp_path / "corrected.csv"), str(bursts)
    config.data.scenes = "auto"
    assert prepare(config).audit_report["scenes"]["scenes"] == 10  # nothing else is looked for


def test_the_command_says_what_it_found(bursts, tmp_path):
    said = CliRunner().invoke(app, ["data", "scenes", str(bursts), "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "Found 20 scenes of 3 shots" in said.output
    assert (tmp_path / "out" / "scenes.html").exists()


def test_training_keeps_scenes_whole_and_says_so(bursts, tmp_path):
    results = imgclf.train(f"folder:{bursts}", tmp_path / "run", fields=fields(), console=QUIET)
    table = pd.read_parquet(tmp_path / "run" / "dataset.parquet")
    assert (table[table["scene"] != ""].groupby("scene")["split"].nunique() == 1).all()
    assert results["scenes"]["scenes"] == 20
    assert results["scenes"]["in_training"]["test"]["shots"] == 0
    assert any(note.startswith("The score is one on new scenes") for note in results["notes"])
    assert (tmp_path / "run" / "scenes.html").exists()
    assert 'href="scenes.html"' in (tmp_path / "run" / "report.html").read_text()
    again = imgclf.train(f"folder:{bursts}", tmp_path / "run", fields=fields(), console=QUIET)  # the same scenes: the same run
    assert again["params_sha256"] == results["params_sha256"]


def test_given_splits_stay_and_their_scenes_are_told(bursts, tmp_path):
    rows = [(f"{path.parent.name}/{path.name}", path.parent.name) for path in sorted(bursts.glob("*/*.jpg"))]
    listed = pd.DataFrame(rows, columns=["path", "label"])
    listed["split"] = ["test" if path.endswith("c.jpg") else "train" for path, _ in rows]
    listed.to_csv(tmp_path / "given.csv", index=False)
    more = {"data.root": str(bursts), "data.split.fractions": (1.0, 0.0, 0.0), "train.best_metric": ""}
    results = imgclf.train(f"csv:{tmp_path / 'given.csv'}", tmp_path / "run", fields=fields(**more), console=QUIET)
    assert results["scenes"]["in_training"] == {"test": {"of": 22, "shots": 20}}
    assert any("20 of 22 test photos are shots of a scene that training has, too" in note for note in results["notes"])
    saved = pd.read_parquet(tmp_path / "run" / "dataset.parquet").set_index("id")["split"]
    assert saved.to_dict() == listed.set_index("path")["split"].to_dict()
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert (audit["dropped"], audit["scenes"]["with_time"]) == ([], 60)


def test_a_class_is_held_out_in_no_more_folds_than_it_has_scenes(bursts):
    config = default_config()
    config.data.path, config.data.scenes, config.probe.folds = str(bursts), "auto", 5
    config.data.split.fractions = (1.0, 0.0, 0.0)
    dataset = load_dataset(config)
    thirds = np.array([f"{name[:-6]}{int(name[-7:-5], 36) % 3}" for name in dataset.table["id"]], object)
    prepared = prepare(config, dataset, lambda _: Scenes(thirds, {}, {}, {"cut": 0.5}))
    assert prepared.audit_report["scenes"]["cut"] == 0.5
    table = prepared.dataset.table
    labels = table["label"].to_numpy()
    validation = CrossValidation.create(labels, groups_of(table), dataset.class_names, (), 5, 0)
    assert validation.folds == 5
    for label in np.unique(labels):
        folds = pd.DataFrame({"scene": table["scene"][labels == label], "fold": validation.fold[labels == label]}).drop_duplicates()
        assert folds["scene"].is_unique
        assert folds["fold"].nunique() == min(5, len(folds))


def test_a_search_without_a_finder_is_a_slip_of_the_caller(bursts):
    config = default_config()
    config.data.path, config.data.scenes = str(bursts), "auto"
    with pytest.raises(ValueError, match="find_scenes"):
        prepare(config)


@pytest.mark.slow
@pytest.mark.parametrize("variation", ["mild", "strong"])
def test_planted_bursts_of_real_photos_are_found_by_real_weights(root, shared, tmp_path, variation):
    """And the estimate is nearer to the truth with them than without."""
    found = importlib.util.spec_from_file_location("scenes", root / "experiments" / "scenes.py")
    experiment = importlib.util.module_from_spec(found)
    found.loader.exec_module(experiment)
    data, _ = load_path(shared / "data" / "clothing10")
    for row in range(0, len(data.table), 8):
        for number in range(4):
            experiment.write_shot(data, row, tmp_path / "planted", experiment.VARIATIONS[variation], (0, row, number))
    planted, _ = load_path(tmp_path / "planted")
    weights = str(shared / "weights" / "mobilenet_v2_0.35_224_no_top.keras.h5")
    features = experiment.features_of(planted, weights)
    names = scenes.find(features, experiment.labels_of(planted), planted.table["id"].tolist()).names
    groups = np.where(names == "", planted.table["id"], names)
    truth = np.array([int(Path(name).stem.split(" ")[1].split("-")[0]) for name in planted.table["id"]])
    precision, recall = experiment.agreement(groups, truth)
    assert precision > 0.8
    assert recall > (0.95 if variation == "mild" else 0.6)
    apart, kept, true = (experiment.estimate(features, planted, given, 0) for given in (None, groups, truth.astype(str)))
    assert apart - true > 0.2
    assert abs(kept - true) < (0.05 if variation == "mild" else 0.1)
