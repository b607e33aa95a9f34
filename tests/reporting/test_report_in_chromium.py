"""The report in a real browser: nothing on its console, nothing asked of the network, no sideways scrolling on a telephone."""

import json

import pytest

from imgclf.reporting import report


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


def test_hostile_names_are_text(browser, hostile_run):
    browser.open(hostile_run / "report.html")
    assert browser.evaluate("document.scripts.length") == 0
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
