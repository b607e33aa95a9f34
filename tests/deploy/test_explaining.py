"""`classifier.explain`, the explained mistakes of a report, and what is refused."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from color_images import picture
from rich.console import Console

from imgclf.deploy import explaining
from imgclf.errors import UserError
from imgclf.reporting import explanations, feature_map, report
from imgclf.training.trained_model import TrainedModel, TrainProgress
from imgclf.workflows import explain as workflow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def classifier(color_classifier):
    return color_classifier[0]


@pytest.fixture(scope="module")
def data(color_classifier):
    return color_classifier[1][0]


@pytest.fixture(scope="module")
def explained(classifier, tmp_path_factory):
    """The table and the page of a folder with two pictures and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, channel in ((900, 0), (901, 2)):
        picture(folder / f"{number}.png", number, channel)
    (folder / "bad.jpg").write_bytes(b"no image")
    page = folder.parent / "page.html"
    return classifier.explain(folder, page, class_name="green", top_k=2, verbose=False), page.read_text()


def test_a_row_says_what_was_answered_what_speaks_for_the_class_and_what_is_near(explained, classifier, data):
    table, _ = explained
    assert table["id"].tolist() == ["900.png", "901.png", "bad.jpg"]
    assert list(table)[-5:] == ["class", "map", "neighbours", "similarity", "reason"]
    assert table["reason"].tolist()[:2] == ["", ""]
    assert "not_an_image" in table["reason"][2] or table["reason"][2]
    assert table["class"].tolist()[:2] == ["green", "green"]
    for row in range(2):
        assert table["map"][row].dtype == np.float32
        assert table["map"][row].shape == classifier.explained.place_count
        assert len(table["neighbours"][row]) == 3
        assert set(table["neighbours"][row]) <= set(data.table["id"])
        assert table["similarity"][row] == sorted(table["similarity"][row], reverse=True)
    assert pd.isna(table["map"][2])


def test_the_page_stands_alone_and_describes_its_pictures(explained):
    _, page = explained
    assert page.count("<article>") == 2
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) == 2 * (1 + 3) + page.count("in orange what speaks for")
    assert all(re.search(r'alt="[^"]+"', tag) for tag in pictures)
    assert "bad.jpg" in page
    assert "in orange what speaks for green" in page


def test_what_can_not_be_explained_is_told_in_a_sentence(classifier, tmp_path):
    with pytest.raises(UserError, match="no picture to explain"):
        classifier.explain([], tmp_path / "page.html")
    one = picture(tmp_path / "one.png", 7, 0)
    with pytest.raises(UserError, match=r"no class 'gren'; did you mean 'green'"):
        classifier.explain(one, class_name="gren", verbose=False)
    with pytest.raises(UserError, match=r"method='gradcam'.*hirescam"):
        classifier.explain(one, method="gradcam", verbose=False)
    with pytest.raises(UserError, match=r"501 pictures are more than one page can show \(500\)"):
        classifier.explain([one] * 501, verbose=False)
    with pytest.raises(UserError, match=r"gone\.png can't be explained \(missing: no such file\)"):
        classifier.explain([one, tmp_path / "gone.png"], tmp_path / "page.html", verbose=False)
    moved = dataclasses.replace(classifier, folder=tmp_path)
    with pytest.raises(UserError, match=r"dataset\.parquet, is not there.*neighbours=0"):
        moved.explain(one, tmp_path / "page.html", neighbours=2, verbose=False)
    assert not (tmp_path / "page.html").exists()
    table = moved.explain(one, tmp_path / "page.html", verbose=False)
    assert table["neighbours"][0] == []
    assert "No training images are shown as neighbours: " in (tmp_path / "page.html").read_text()


def test_a_report_shows_the_worst_mistakes_with_their_maps_and_no_image_is_its_own_neighbour(classifier, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(classifier.folder, run)
    results = json.loads((run / "results.json").read_text())
    predictions = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False).astype({"probability": float})
    wrong = predictions["id"].isin(data.table["id"][:2])
    others = {"red": "green", "green": "blue", "blue": "red"}
    predictions.loc[wrong, "predicted"] = predictions.loc[wrong, "true"].map(others)
    predictions.to_csv(run / "predictions.csv", index=False)
    about = {"class_names": list(classifier.class_names)}
    trained = TrainedModel(classifier.params, classifier.batch_stats, about, TrainProgress(), 0, logits_of=lambda split: None)
    config = classifier.config.copy_and_resolve_references()
    config.eval.explain = 24
    workflow.explain_mistakes(run, config, data.dataset, trained, results, predictions, QUIET)
    said, cards = explanations.of_run(run)
    assert set(data.table["id"][:2]) <= set(cards)
    for image_id, card in cards.items():
        true = predictions.loc[predictions["id"] == image_id, ["predicted", "true"]].iloc[0].tolist()
        assert [row["class"] for row in card["maps"]] == true
        assert image_id not in [row["id"] for row in card["neighbours"]]
        assert len(card["neighbours"]) == explaining.NEIGHBOURS
    assert "the nearest of 60 training images" in " ".join(said["text"])
    assert "the kept head, which was solved on these images, too" in " ".join(said["text"])
    workflow.map_evaluated(run, config, data.dataset, trained, predictions, QUIET)
    found = feature_map.of_run(run)
    assert json.loads(found["data"])["ids"] == predictions["id"].tolist()
    assert found["wrong"] == (predictions["predicted"] != predictions["true"]).sum()
    page = report.write_report(run).read_text()
    assert page.count("<article>") == len(cards)
    assert 'id="map"' in page
