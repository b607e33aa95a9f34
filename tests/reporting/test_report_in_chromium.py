"""The report in a real browser: nothing on its console, nothing asked of the network, no sideways scrolling on a telephone."""

import json

import pandas as pd
import pytest

from imgclf.reporting import report, samples


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
