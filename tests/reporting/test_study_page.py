"""The page of a study: it names its question and date, marks the arm to take, and its charts fill their rows."""

import json

import numpy as np
import pandas as pd
import pytest

from imgclf.config import default_config
from imgclf.reporting import plots, study_page
from imgclf.studies import Study
from imgclf.studies import summary as summary_lib

QUESTION = "Which augmentation pays, <b>if</b> any,\nfor a small CNN?\n\nOne length of training for all.\n\n  arm   what\n  none  nothing"
ARMS = {"none": {}, "flip & crop, by half": {"augment.flip": 0.5}, "a name that goes on and on and on, as names do": {"augment.flip": 0.2}}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Three arms, two seeds; the second is as good as the third, and both are told from the first."""
    folder, rows, hard = tmp_path_factory.mktemp("study"), [], np.random.default_rng(0).random(400)
    for (arm, share), cost in zip(zip(ARMS, (0.6, 0.91, 0.9), strict=True), (4e12, 4.01e12, 9e12), strict=True):
        for seed in range(2):
            run = folder / "runs" / f"{len(rows)}"
            run.mkdir(parents=True)
            lines = [{"step": e, "epoch": e, "train_loss": 1 / e, "val_loss": 1 / e, "val_top1": share * (1 - 1 / e)} for e in range(1, 6)]
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            correct = {str(image): bool(value < share) for image, value in enumerate(hard)}
            results = {"n": 400, "top1": share, "loss": 0.3, "train_seconds": 40.0, "params_trainable": 93_892, "train_flops": cost}
            place = {"arm": arm, "seed": seed, "fold": 0, "folder": f"runs/{len(rows)}", "date": f"2026-05-0{seed + 1}"}
            rows.append(place | results | {"images_per_second": 900.0, "correct": correct})
    table = pd.DataFrame(rows)
    summary = summary_lib.summarize(Study(default_config(), ARMS, seeds=2, question=QUESTION), list(ARMS), table, [])
    summary["best"]["command"] = "imgclf train best.json"
    return study_page.write(folder, summary, table)


def test_it_names_its_question_and_its_date(page):
    text = page.read_text()
    assert "<title>Which augmentation pays, &lt;b&gt;if&lt;/b&gt; any, for a small CNN? · imgclf study</title>" in text
    assert '<p class="question">Which augmentation pays, &lt;b&gt;if&lt;/b&gt; any, for a small CNN?</p>' in text
    assert "<p>One length of training for all.</p>" in text
    assert "<pre>  arm   what" in text
    assert '<time datetime="2026-05-02">2026-05-02</time>' in text
    assert "4.01 TFLOP" in text.replace("\u00a0", " ")


def test_the_arm_to_take_is_marked(page):
    text = page.read_text()
    assert text.count('class="badge"') == 1
    assert '<tr class="taken"><th scope="row" class="name">flip &amp; crop, by half<span class="badge">recommended</span></th>' in text


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (400, True)])
def test_it_is_quiet_and_fits(browser, page, width, dark):
    assert browser.open(page, width, dark=dark) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_fill_their_rows_at_one_size_of_type(browser, page):
    rows = """[...document.querySelectorAll('.row-of-charts')].map(row => [...row.querySelectorAll('svg')].filter(svg => svg.clientWidth)
        .map(svg => [Math.round(svg.getBoundingClientRect().width), svg.viewBox.baseVal.width]))"""
    browser.open(page, 1280)
    found = browser.evaluate(rows)
    assert [len(row) for row in found] == [2, 3]
    for row in found:
        assert sum(shown for shown, _ in row) + plots.GAP * (len(row) - 1) == pytest.approx(plots.ROW, abs=4)
        assert all(abs(shown - drawn) <= 2 for shown, drawn in row)  # not scaled: letters are as large as they were drawn
    browser.open(page, 400)
    narrow = browser.evaluate(rows)
    assert [len(row) for row in narrow] == [2, 3]
    assert all(abs(shown - drawn) <= 2 for row in narrow for shown, drawn in row)


def test_a_table_that_is_wider_than_a_telephone_shows_that_it_goes_on(browser, page):
    browser.open(page, 400)
    wide = "document.querySelector('[aria-label=arms]')"
    fade = f"new Promise(done => requestAnimationFrame(() => done(parseFloat(getComputedStyle({wide}).getPropertyValue('--fade')))))"
    assert browser.evaluate(f"{wide}.scrollWidth > {wide}.clientWidth + 100")
    assert browser.evaluate(fade) > 20
    browser.evaluate(f"{wide}.scrollLeft = 10000")
    assert browser.evaluate(fade) == 0
    browser.open(page, 1280)
    assert browser.evaluate(fade) == 0  # all of it is there
