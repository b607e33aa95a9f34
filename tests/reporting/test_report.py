"""The report: complete, escaped, self-contained, made from the run's folder alone."""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imgclf.errors import UserError
from imgclf.evaluation import metrics
from imgclf.reporting import class_table, plots, report, samples

SECTIONS = [
    "previous",
    "classes",
    "samples",
    "curves",
    "confusion",
    "per-class",
    "thresholds",
    "calibration",
    "mistakes",
    "map",
    "quarantine",
    "audit",
    "config",
    "environment",
]


class Page(HTMLParser):
    """The tags, the text and the sections of a page."""

    VOID = ("meta", "link", "img", "br", "hr", "input")
    INLINE = ("span", "strong", "code", "a", "i", "small")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.sections, self.words = [], [], [], []
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "section":
            self.sections.append(attributes["id"])
        self._part(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._part(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title", "script"):
            self.words.append(data)

    def _part(self, tag):
        if tag not in self.INLINE:
            self.words.append(" ")


def read(run) -> Page:
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert page.open == []  # every tag was closed, in order
    return page


@pytest.fixture
def copy(finished_run, tmp_path):
    """A copy of the finished run, to change."""
    return shutil.copytree(finished_run, tmp_path / "copy")


def test_everything_is_there_in_order(finished_run):
    page = read(finished_run)
    assert page.sections == SECTIONS
    results = json.loads((finished_run / "results.json").read_text())
    headline = metrics.headline(results).replace("\u00a0", " ")
    assert headline in page.text
    assert f"{round(results['top1'] * results['n'])} of 96 test images right" in headline
    assert "always answering “three”, the most common class in training" in page.text
    assert "One copy of an evaluation image was dropped before training." in page.text
    assert "2 truncated, 1 not an image, 1 empty" in page.text
    assert "train.duration" in page.text
    assert '"12 epochs"' in page.text
    assert "jax 0.10.2" in page.text
    assert "whose parameters were kept for their lowest validation loss" in page.text
    for kind in ("exact copies", "near duplicates", "groups on both sides", "images under two labels", "images dropped"):
        assert kind in page.text


def test_baseline_is_the_common_training_class_on_the_evaluated_split(finished_run):
    table = pd.read_parquet(finished_run / "dataset.parquet")
    test = table.loc[table["split"] == "test", "class_name"]
    common = table.loc[table["split"] == "train", "class_name"].value_counts().index[0]
    assert f"would be right for {100 * (test == common).mean():.1f} % of these images" in read(finished_run).text


@pytest.mark.parametrize("name", ["finished_run", "hostile_run"])
def test_self_contained_and_small(request, name):
    run = request.getfixturevalue(name)
    page = read(run)
    assert (run / "report.html").stat().st_size < 3_000_000
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "form", "base", "video", "audio"}
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(key, "#")
            assert value.startswith(("data:", "#")), (tag, key, value)
    text = (run / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()}'" in text
    kinds = {attributes.get("type") for tag, attributes in page.tags if tag == "script"}
    assert kinds == {None, "application/json", "application/octet-stream", "text/plain"}
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img" and not attributes["alt"]] == []


def test_names_and_paths_are_escaped(hostile_run):
    page = read(hostile_run)
    names = json.loads((hostile_run / "results.json").read_text())["class_names"]
    assert all(name in page.text for name in names)
    assert "{{ 7 * 7 }}" in page.text  # not rendered as a template
    assert "image file is <cut>" in page.text
    assert "a&b/<img src=x onerror=alert(2)>" in page.text
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert any(alt.startswith("<script>alert(1)</script>: a&b/<img src=x onerror=alert(2)>") for alt in alts)
    titles = {attributes.get("title") for _, attributes in page.tags}
    assert set(names) <= titles


def test_remade_from_the_folder_alone_is_the_same(copy):
    before = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    assert report.write_report(copy) == copy / "report.html"
    assert (copy / "report.html").read_bytes() == before
    assert not list(copy.glob("*.part"))


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("dataset.parquet", "classes"),
        ("previous.json", "previous"),
        ("metrics.jsonl", "curves"),
        ("quarantine.csv", "quarantine"),
        ("audit.json", "audit"),
        ("config.json", "config"),
        ("environment.json", "environment"),
    ],
)
def test_a_missing_file_costs_its_section_only(copy, file, section):
    path = copy / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    report.write_report(copy)
    assert read(copy).sections == [name for name in SECTIONS if name != section]


@pytest.mark.parametrize(
    ("file", "sections"), [("samples", {"samples", "map"}), ("predictions.csv", {"mistakes", "thresholds"})], ids=["samples", "predictions"]
)
def test_a_missing_file_of_two_sections(copy, file, sections):
    path = copy / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    report.write_report(copy)
    assert read(copy).sections == [name for name in SECTIONS if name not in sections]


def test_without_results_there_is_no_score(copy):
    (copy / "results.json").unlink()
    report.write_report(copy)
    page = read(copy)
    assert "No score yet" in page.text
    assert page.sections == [name for name in SECTIONS if name not in ("confusion", "per-class", "calibration")]


def test_an_empty_folder_and_none(tmp_path):
    report.write_report(tmp_path)
    assert read(tmp_path).sections == []
    with pytest.raises(UserError, match=r"no folder .*absent: name a run"):
        report.write_report(tmp_path / "absent")


def test_a_log_cut_off_while_writing_is_read_up_to_there(copy):
    whole = (copy / "metrics.jsonl").read_text()
    (copy / "metrics.jsonl").write_text(whole + '{"step": 109, "epo')
    before = (copy / "report.html").read_bytes()
    report.write_report(copy)
    assert (copy / "report.html").read_bytes() == before


def test_val_only_none_quarantined_and_no_mistakes(make_run, tmp_path):
    run = make_run(tmp_path / "run", splits="val only")
    table = pd.read_csv(run / "predictions.csv").assign(predicted=lambda frame: frame["true"])
    table.to_csv(run / "predictions.csv", index=False)
    report.write_report(run)
    page = read(run)
    assert "There is no test split; the score is on val." in page.text
    assert "96 val images right" in page.text
    assert "none was set aside" in page.text
    assert "None: all 96 images were predicted right." in page.text


def test_calibration_is_told_with_its_sets(copy):
    results = json.loads((copy / "results.json").read_text())
    fitted = {"split": "val", "n": 96, "ece_uncalibrated": 0.123, "loss_uncalibrated": 0.5, "note": "Fitted on val, which also chose."}
    sets = {"alpha": 0.1, "threshold": 0.8, "n": 96, "coverage": 0.92, "coverage_ci95": [0.85, 0.96], "mean_size": 1.25, "note": None}

    def told(**changes) -> str:
        (copy / "results.json").write_text(json.dumps(results | {"temperature": 1.5, "calibration": fitted, "conformal": sets} | changes))
        report.write_report(copy)
        return read(copy).text.replace("\N{NO-BREAK SPACE}", " ")

    page = told()
    assert "Temperature 1.50, fitted on 96 val images; without it the calibration error would be 12.3 %. Fitted on val, which" in page
    assert "probability is at least 20.0 %, by 96 val images, are meant to hold the true one in 90.0 % of cases" in page
    assert "here they do in 92.0 % (95 % interval 85.0–96.0 %) with 1.25 classes on average." in page
    page = told(calibration=fitted | {"split": None, "n": 0, "note": "Not fitted."}, conformal=sets | {"coverage": None, "note": "Few."})
    assert "Temperature 1. Not fitted." in page
    assert "in 90.0 % of cases. Few." in page
    assert "Conformal" not in told(conformal=None)


def test_a_class_without_examples_is_undefined_not_zero(copy):
    results = json.loads((copy / "results.json").read_text())
    names = [*results["class_names"], "unseen"]
    probabilities = np.full((8, 5), 0.1, np.float32)
    probabilities[np.arange(8), np.arange(8) % 4] = 0.6
    results |= {**metrics.compute(probabilities, np.arange(8) % 4, names), "class_names": names}
    (copy / "results.json").write_text(json.dumps(results))
    report.write_report(copy)
    assert "unseen 0 – – – –" in read(copy).text
    assert "left out for want of examples: 1 of 5 classes" in read(copy).text


def test_many_classes_are_condensed(tmp_path):
    classes = 60
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 4)
    logits = rng.normal(size=(len(labels), classes)) + 3 * np.eye(classes)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    names = [f"class {i:02d}" for i in range(classes)]
    results = {"split": "test", **metrics.compute(probabilities, labels, names)}
    (tmp_path / "results.json").write_text(json.dumps(results))
    report.write_report(tmp_path)
    page = read(tmp_path)
    assert "matrix" not in {attributes.get("class", "").split(" ")[0] for tag, attributes in page.tags if tag == "table"}
    assert "Condensed confusion matrix of 60 classes" in {attributes.get("aria-label") for _, attributes in page.tags}
    wrong = np.array(results["confusion"]) * (1 - np.eye(classes))
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    assert f"{names[true]} {names[predicted]} {int(wrong.max())} of 4" in page.text
    assert "All 60 classes" in page.text


def test_very_many_classes_are_shown_by_the_worst_the_best_and_a_search(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "DENSE_CLASSES", 50)
    monkeypatch.setattr(class_table, "MANY", 50)
    classes, rng = 60, np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 4)
    names = [f"</script>{i:02d}" for i in range(classes)]
    probabilities = rng.dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    probabilities[np.arange(len(labels)), labels] += 0.05 * rng.integers(0, 2, len(labels))
    probabilities /= probabilities.sum(1, keepdims=True)
    results = {"split": "test", **metrics.compute(probabilities, labels, names), "class_names": names}
    (tmp_path / "results.json").write_text(json.dumps(results))
    report.write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    packed = re.search(r'id="class-data">(.*?)</script>', text)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert data["name"] == names
    assert [right / of for right, of in zip(data["right"], data["support"], strict=True)] == [
        results["per_class"][name]["recall"] for name in names
    ]
    predicted = probabilities.argmax(1)
    for label in range(classes):
        counts = np.bincount(predicted[(labels == label) & (predicted != label)], minlength=classes)
        assert data["times"][label] == counts.max()
        assert counts.max() == 0 or data["taken"][label] == counts.argmax()
    assert data["said"] == np.bincount(predicted, minlength=classes).tolist()
    assert "Condensed confusion" not in text


def test_condensing_keeps_every_mistake_and_puts_the_confused_together():
    confusion = np.diag(np.full(80, 10))
    for label in range(80):  # label and label + 40 are mistaken for each other
        confusion[label, (label + 40) % 80] = 5
    svg, block = plots.condensed_confusion(confusion)
    assert block == 2
    cells = [cell for cell in re.findall(r'<path[^>]*fill="#2f6fb2"[^>]*>', svg) if 'opacity="0"' not in cell]
    assert len(cells) == 40  # all mistakes stay within their block of two: on the diagonal


def test_samples_are_small_chosen_by_id_and_lossless_where_tiny(finished_run, hostile_run):
    for run, small in ((finished_run, True), (hostile_run, False)):
        index = json.loads((run / "samples" / "index.json").read_text())
        assert all(len(ids) == samples.GRID_PER_CLASS for ids in index["grid"].values())
        assert set(index["mistakes"]) <= set(index["thumbnails"])
        assert "gone/1" not in index["thumbnails"]
        for known in index["thumbnails"].values():
            with Image.open(run / "samples" / known["file"]) as image:
                assert image.format == "WEBP"
                assert image.size in ([(8, 8)] if small else [(160, 160), (samples.CELL_EDGE,) * 2])


def test_tiny_thumbnails_are_exact(finished_run, dataset):
    index = json.loads((finished_run / "samples" / "index.json").read_text())
    for image_id, known in list(index["thumbnails"].items())[:10]:
        row = dataset.table.index[dataset.table["id"] == image_id][0]
        with Image.open(finished_run / "samples" / known["file"]) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), dataset.reader[row])


def test_an_image_that_went_away_is_told(copy, dataset):
    class Gone:
        def __getitem__(self, row):
            raise FileNotFoundError("no such file")

    predictions = pd.read_csv(copy / "predictions.csv")
    samples.save(copy, dataclasses.replace(dataset, reader=Gone()), predictions, {})
    report.write_report(copy)
    page = read(copy)
    assert not list((copy / "samples").glob("*.webp"))
    index = json.loads((copy / "samples" / "index.json").read_text())
    assert f"{len(index['unreadable'])} images could no longer be read" in page.text
    assert "no picture" in page.text


def test_the_most_confident_mistakes_come_first():
    frame = pd.DataFrame({
        "id": ["a", "b", "c", "d", "e"],
        "true": ["x", "x", "y", "", "y"],
        "predicted": ["y", "x", "x", "x", "x"],
        "probability": [0.6, 0.99, 0.9, 0.95, 0.6],
    })  # fmt: skip
    assert samples.most_confident_mistakes(frame, 2)["id"].tolist() == ["c", "a"]


def test_long_series_are_thinned_and_keep_their_mean():
    rows = pd.DataFrame({"epoch": np.arange(10_000) / 100, "value": np.linspace(3, 1, 10_000)})
    rows.loc[17, "value"] = np.nan
    thin = plots._thinned(rows)
    assert len(thin) == plots.POINTS
    assert thin["value"].mean() == pytest.approx(rows["value"].mean(), rel=1e-3)
    assert thin["epoch"].is_monotonic_increasing


def test_every_tick_of_a_small_learning_rate_has_its_own_label():
    chart = plots.curves({"learning rate": pd.DataFrame({"epoch": [10.0, 20.0], "value": [0.0012, 0.0]})}, "learning rate")
    ticks = re.findall(r">(0(?:\.\d+)?)</text>", str(chart))
    assert "0.0012" in ticks
    assert len(set(ticks)) == len(ticks)


def test_the_data_are_named_once_where_the_run_is_named_after_them(copy):
    config = json.loads((copy / "config.json").read_text())

    def kicker(path: str) -> str:
        config["data"]["source"], config["data"]["path"], config["name"] = "folder", path, "image"
        (copy / "config.json").write_text(json.dumps(config))
        report.write_report(copy)
        return re.search(r'class="kicker">(.*?)</div>', (copy / "report.html").read_text(encoding="utf-8"))[1]

    assert kicker("image").count("image") == 1
    assert "photos/image" in kicker("photos/image")


def test_every_kind_of_mistake_has_pictures_before_one_has_many():
    frame = pd.DataFrame({
        "id": [f"{place:03d}" for place in range(samples.CELLS + 20)],
        "true": "x",
        "predicted": ["rare", *["often"] * 10, *(f"once {place}" for place in range(samples.CELLS + 9))],
        "probability": np.linspace(0.9, 0.5, samples.CELLS + 20),
    })  # fmt: skip
    cells = {said: ids for _, said, ids in samples._cells(frame)}
    assert len(cells) == samples.CELLS
    assert cells["often"] == ["001"]  # there are more kinds than places
    few = {said: ids for _, said, ids in samples._cells(frame.head(12))}
    assert few == {"rare": ["000"], "often": [f"{place:03d}" for place in range(1, 1 + samples.CELL_IMAGES)], "once 0": ["011"]}
