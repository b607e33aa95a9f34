"""The report in a real browser: nothing on its console, nothing asked of the network, no sideways scrolling on a telephone."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest

from imgclf.evaluation import metrics
from imgclf.reporting import confusion, report, samples


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("<script>console.error('oh')</script>", "console.error"),
        ("<script>console.warn('oh')</script>", "console.warning"),
        ("<script>missing()</script>", "exception"),
        ("<img src='http://127.0.0.1:9/x.png'>", "request: http://127.0.0.1:9/x.png"),
        ("<style>body{background:url(http://127.0.0.1:9/y.png)}</style>", "request: http://127.0.0.1:9/y.png"),
        ("<img src='neighbour.png'>", "request: file://"),
    ],
)
def test_misdeeds_are_seen(browser, tmp_path, body, told):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><title>bad</title>{body}")
    assert any(line.startswith(told) for line in browser.open(page))


def test_a_clean_page_is_clean(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><meta charset=utf-8><title>good</title><p>good")
    assert browser.open(page) == []


@pytest.mark.parametrize("name", ["finished_run", "hostile_run"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (400, True)])
def test_report_is_quiet_and_fits(browser, request, tmp_path, name, width, dark):
    page = request.getfixturevalue(name) / "report.html"
    assert browser.open(page, width, dark=dark) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # whatever is wider than the page stands in a box of its own that scrolls
    outside = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
        && !e.closest('.scroll') && !e.closest('svg') && getComputedStyle(e).position != 'absolute').map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(outside) == []
    pictures = "[...document.images].map(i => i.complete && i.naturalWidth > 0)"
    assert len(browser.evaluate(pictures)) > 20
    assert all(browser.evaluate(pictures))
    assert all(browser.evaluate("[...document.images].map(i => i.alt.length > 0)"))
    dark_page = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark_page == dark
    shot = browser.screenshot(tmp_path / f"{name}-{width}.png")
    assert shot.stat().st_size > 50_000


@pytest.mark.slow  # axe-core takes about two seconds for each
@pytest.mark.parametrize("name", ["finished_run", "hostile_run"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False), (400, True)])
def test_report_is_accessible(browser, request, name, width, dark):
    browser.open(request.getfixturevalue(name) / "report.html", width, dark=dark)
    browser.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    assert browser.violations() == []
    browser.evaluate("document.querySelector('[data-true] button').click()")
    assert browser.violations() == []


def test_sorting_by_keyboard(browser, finished_run):
    browser.open(finished_run / "report.html")
    table = "document.querySelector('#per-class table')"
    column = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[5].dataset.value))"
    results = json.loads((finished_run / "results.json").read_text())
    precision = sorted(row["precision"] for row in results["per_class"].values())
    browser.evaluate(f"{table}.tHead.rows[0].cells[5].querySelector('button').focus()")
    browser.press("Enter")
    assert browser.evaluate(column) == precision[::-1]
    assert browser.evaluate(f"[...{table}.tHead.rows[0].cells].map(head => head.getAttribute('aria-sort'))") == [
        *[None] * 5,
        "descending",
        None,
    ]
    browser.press(" ")
    assert browser.evaluate(column) == precision
    assert browser.evaluate("document.activeElement.closest('th').ariaSort") == "ascending"


def test_a_cell_of_the_confusion_matrix_opens_its_pictures(browser, hostile_run):
    browser.open(hostile_run / "report.html")
    first = "document.querySelector('.matrix [data-true] button')"
    count, name = browser.evaluate(f"(cell => [Number(cell.textContent), cell.dataset.said])({first}.closest('td'))")
    browser.evaluate(f"{first}.focus()")
    browser.press("Enter")
    assert browser.evaluate("document.getElementById('cell').open")
    assert browser.evaluate("document.getElementById('cell-title').textContent").endswith(f"taken for {name}")
    shown = browser.evaluate("[...document.querySelectorAll('#cell-pictures img')].map(i => [i.complete && i.naturalWidth > 0, i.alt])")
    assert len(shown) == min(count, samples.CELL_IMAGES)
    assert all(loaded and f"taken for {name}: a&b/<img src=x" in alt for loaded, alt in shown)
    browser.press("Escape")
    assert not browser.evaluate("document.getElementById('cell').open")
    assert browser.evaluate(f"document.activeElement === {first}")


def test_the_threshold_tells_precision_recall_and_the_share_answered(browser, finished_run):
    browser.open(finished_run / "report.html")
    said = pd.read_csv(finished_run / "predictions.csv")
    told = "['precision', 'recall', 'share'].map(name => document.getElementById(`threshold-${name}-of`).textContent)"

    def at(threshold: float, name: str | None) -> list[str]:
        sure = said[said["probability"] >= threshold]
        own = said if name is None else said[said["true"] == name]
        answers = sure if name is None else sure[sure["predicted"] == name]
        right, any_answer = (answers["true"] == answers["predicted"]).sum(), (own["probability"] >= threshold).sum()
        return [f"{right} of {len(answers)}", f"{right} of {len(own)}", f"{any_answer} of {len(own)}"]

    assert browser.evaluate(told) == at(0, None)
    for _ in range(60):
        browser.evaluate("document.getElementById('threshold').focus()")
        browser.press("ArrowRight")
    assert browser.evaluate("document.getElementById('threshold').value") == "30"
    browser.evaluate("(s => { s.value = 60.5; s.dispatchEvent(new Event('input')); })(document.getElementById('threshold'))")
    assert browser.evaluate(told) == at(0.605, None)
    browser.evaluate("(s => { s.value = '1'; s.dispatchEvent(new Event('change')); })(document.getElementById('threshold-class'))")
    assert browser.evaluate("document.getElementById('threshold-class').selectedOptions[0].text") == "five"
    assert browser.evaluate(told) == at(0.605, "five")
    browser.evaluate("document.querySelector('[data-precision=\"0.99\"]').click()")
    threshold = float(browser.evaluate("document.getElementById('threshold').value")) / 100
    right, answers = map(int, at(threshold, "five")[0].split(" of "))
    assert right >= 0.99 * answers


def test_hostile_names_are_text(browser, hostile_run):
    assert browser.open(hostile_run / "report.html") == []
    assert browser.evaluate("[...document.scripts].filter(one => !one.type).length") == 1
    assert browser.evaluate("[...document.getElementById('threshold-class').options].slice(1).map(one => one.text)") == [
        " ".join(name.split()) for name in json.loads((hostile_run / "results.json").read_text())["class_names"]
    ]
    assert browser.evaluate("document.querySelectorAll('[onerror]').length") == 0
    names = browser.evaluate("[...document.querySelectorAll('#classes tbody th')].map(e => e.textContent)")
    results = json.loads((hostile_run / "results.json").read_text())
    assert names == results["class_names"]


def test_a_bare_run_is_quiet_and_fits(browser, tmp_path):
    page = report.write_report(tmp_path)
    assert browser.open(page, 400) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert "No score yet" in browser.evaluate("document.body.innerText")


def test_links_lead_somewhere(browser, finished_run):
    browser.open(finished_run / "report.html")
    assert (
        browser.evaluate("[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href'))).length") == 0
    )
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


SHEET = (8.27, 11.69)  # inches: A4
PRINTABLE = 687  # CSS pixels between the margins of such a sheet


@pytest.fixture
def run_of_many_classes(tmp_path):
    """A run with the largest confusion matrix that is shown whole, as wide as a report can get."""
    classes, rng = confusion.MATRIX_CLASSES, np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 12)
    logits = rng.normal(size=(len(labels), classes)) + 2 * np.eye(classes)[labels]
    names = [f"class {number:02d}{' whose name takes a whole sentence' * 6 if number == 3 else ''}" for number in range(classes)]
    scores = metrics.compute((np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32), labels, names)
    (tmp_path / "results.json").write_text(json.dumps({"split": "test", **scores, "class_names": names}))
    report.write_report(tmp_path)
    return tmp_path


@pytest.mark.slow  # two seconds for each
@pytest.mark.parametrize(("name", "sheets"), [("finished_run", (7, 10)), ("hostile_run", (8, 12)), ("run_of_many_classes", (3, 6))])
def test_it_can_be_printed(browser, request, name, sheets):
    """On so many sheets, in light colours though the screen is dark; nothing is cut, folded or waits to be pressed."""
    page = request.getfixturevalue(name) / "report.html"
    browser.open(page, PRINTABLE, dark=True)
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True, paperWidth=SHEET[0], paperHeight=SHEET[1])["data"])
    assert sheets[0] <= len(re.findall(rb"/Type /Page\b", pdf)) <= sheets[1]

    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=[dark])
    try:
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.evaluate("document.documentElement.scrollWidth") <= PRINTABLE
        cut = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.closest('svg')
            && (e.getBoundingClientRect().right > innerWidth + 1 || e.matches('.scroll') && getComputedStyle(e).overflowY != 'visible'))
            .map(e => e.outerHTML.slice(0, 80))"""
        assert browser.evaluate(cut) == []
        controls = "[...document.querySelectorAll('nav, select, input, dialog')].filter(e => e.checkVisibility()).map(e => e.outerHTML)"
        assert browser.evaluate(controls) == []
        covered = "[...document.images].filter(i => i.clientHeight > i.closest('.picture')?.clientHeight + 1).map(i => i.alt)"
        assert browser.evaluate(covered) == []
        printed = browser.evaluate("document.body.innerText")
        headings = browser.evaluate("[...document.querySelectorAll('h2')].map(e => e.textContent)")
        assert [heading for heading in headings if heading not in (*printed.splitlines(), "Pictures")] == []
        folded = browser.evaluate("[...document.querySelectorAll('details:not(.on-screen) td')].filter(e => !e.checkVisibility()).length")
        assert folded == 0
        assert "open the pictures" not in printed
        assert browser.evaluate("[...document.querySelectorAll('.on-paper')].every(e => e.checkVisibility())")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="", features=[dark])
