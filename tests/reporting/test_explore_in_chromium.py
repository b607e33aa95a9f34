"""The page of a data set in a real browser: filters, sorting, search, keys, enlargement; many images; hostile names."""

import time

import pytest
from explored import ATTACKS, hostile, planted

from imgclf.reporting import explore


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return explore.write_page(planted(), tmp_path_factory.mktemp("explore") / "page.html")


@pytest.fixture
def opened(browser, page):
    assert browser.open(page) == []
    return browser


def shown(browser) -> list[str]:
    """The ids in view, in order."""
    names = browser.evaluate("[...document.querySelectorAll('.tile')].sort((a, b) => a.dataset.p - b.dataset.p).map(e => e.ariaLabel)")
    return [name.split(", ")[1] for name in names]


def told(browser) -> str:
    return browser.evaluate("document.getElementById('shown').textContent")


def tick(browser, text: str) -> None:
    browser.evaluate(f"[...document.querySelectorAll('.option')].find(e => e.title == {text!r}).querySelector('input').click()")


def choose(browser, name: str, value: str) -> None:
    event = "input" if name in ("search", "zoom") else "change"
    browser.evaluate(f"(e => {{ e.value = {value!r}; e.dispatchEvent(new Event({event!r})) }})(document.getElementById({name!r}))")
    time.sleep(0.2 if name == "search" else 0)  # typing is waited for


def key(browser, name: str) -> None:
    code = {"Enter": 13, "Escape": 27}.get(name, 0)
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)
    if name == "Enter":
        browser.call("Input.dispatchKeyEvent", type="char", key=name, text="\r")
    browser.evaluate("new Promise(requestAnimationFrame).then(() => 0)")  # a dialog tells only then that it was closed


def focused(browser) -> str:
    return browser.evaluate("document.activeElement.ariaLabel || document.activeElement.id")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_the_page_is_quiet_and_fits(browser, page, width, dark):
    assert browser.open(page, width, dark=dark) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert (browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)") == dark
    assert browser.evaluate("document.getElementById('filters').open") == (width > 820)
    assert all(browser.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0)))"))
    assert browser.evaluate("document.querySelector('.tile img').getBoundingClientRect().width") > 40


def test_filters_work_together(opened):
    assert told(opened) == "66 images"
    tick(opened, "a")
    assert told(opened) == "23 of 66 images"
    assert {name[0] for name in shown(opened)} == {"a"}
    tick(opened, "test")
    assert told(opened) == "10 of 66 images"
    tick(opened, "b")  # a or b, and test
    assert told(opened) == "21 of 66 images"
    opened.evaluate("document.getElementById('clear').click()")
    assert told(opened) == "66 images"
    tick(opened, "label conflict")
    assert shown(opened) == ["a/near.png", "b/wrong.png"]
    tick(opened, "copy across splits")
    assert sorted(shown(opened)) == ["a/near.png", "b/leak.png", "b/original.png", "b/wrong.png"]


def test_counts_are_those_of_the_other_filters(opened):
    tick(opened, "test")
    counts = opened.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.option')].map(e => [e.title, e.querySelector('.n').textContent]))"
    )
    assert counts["train"] == "35"
    assert counts["test"] == "31"
    assert int(counts["a"]) + int(counts["b"]) + int(counts["c"]) == 31


def test_search_and_sorting(opened):
    choose(opened, "search", "C/000")
    assert shown(opened) == ["c/0002.png", "c/0005.png", "c/0008.png"]
    choose(opened, "search", "no such")
    assert told(opened) == "0 of 66 images"
    assert not opened.evaluate("document.getElementById('nothing').hidden")
    choose(opened, "search", "")
    choose(opened, "sort", "copies")
    assert shown(opened)[:6] == ["a/near.png", "b/wrong.png", "a/first.png", "a/second.png", "b/leak.png", "b/original.png"]
    choose(opened, "sort", "name")
    assert shown(opened)[:2] == ["a/0000.png", "a/0003.png"]
    choose(opened, "sort", "tall")
    assert shown(opened)[0] == "a/0000.png"
    assert opened.evaluate("document.querySelectorAll('.row.head').length") == 0


def test_keys_reach_everything(opened):
    opened.evaluate("document.querySelector('.tile[tabindex=\"0\"]').focus()")
    assert opened.evaluate("document.querySelectorAll('.tile[tabindex=\"0\"]').length") == 1
    key(opened, "ArrowRight")
    assert "a/0003.png" in focused(opened)
    assert "a/0003.png" in opened.evaluate("document.getElementById('preview').textContent")  # enlarged as if hovered
    key(opened, "End")
    assert "c/0059.png" in focused(opened)
    key(opened, "Home")
    key(opened, "ArrowDown")
    down = focused(opened)
    key(opened, "ArrowUp")
    assert "a/0000.png" in focused(opened) != down
    key(opened, "Enter")
    assert opened.evaluate("document.getElementById('detail').open")
    key(opened, "ArrowRight")
    assert opened.evaluate("document.querySelector('#detail h2').textContent") == "0003.png"
    key(opened, "Escape")
    assert not opened.evaluate("document.getElementById('detail').open")
    assert "a/0003.png" in focused(opened)
    key(opened, "/")
    assert focused(opened) == "search names and classes"


def test_hover_enlarges(opened):
    at = opened.evaluate("(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector('.tile').getBoundingClientRect())")
    assert opened.evaluate("document.getElementById('preview').hidden")
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    time.sleep(0.4)
    assert opened.evaluate("document.querySelector('#preview img').getBoundingClientRect().width") == 320
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert opened.evaluate("document.getElementById('preview').hidden")


def test_an_image_shows_its_copies(opened):
    tick(opened, "label conflict")
    opened.evaluate("document.querySelector('.tile').click()")
    assert opened.evaluate("[...document.querySelectorAll('#detail .copies button')].map(e => e.textContent)") == ["a · train", "b · train"]
    opened.evaluate("[...document.querySelectorAll('#detail .buttons button')].find(e => e.textContent == 'Show these only').click()")
    assert told(opened) == "2 of 66 images"
    assert not opened.evaluate("document.getElementById('detail').open")


def test_hostile_names_are_text(browser, tmp_path):
    page = explore.write_page(hostile(), tmp_path / "page.html")
    assert browser.open(page) == []
    assert browser.evaluate("document.querySelectorAll('[onerror], [onload], main svg').length") == 0
    assert browser.evaluate("[...document.querySelectorAll('.option')].map(e => e.title)")[:4] == sorted(ATTACKS)
    browser.evaluate("document.querySelector('.tile').click()")
    assert not any(event.get("method") == "Page.javascriptDialogOpening" for event in browser.events)


def test_many_images_stay_fluid(browser, tmp_path):
    page = explore.write_page(planted(2500), tmp_path / "page.html")
    assert browser.open(page) == []
    assert told(browser) == "2,506 images"
    assert browser.evaluate("document.querySelectorAll('.tile').length") < 400  # of 2,506: those near the window
    scrolled = """new Promise(done => { let n = 0, most = 0; const step = () => { scrollBy(0, 400);
        most = Math.max(most, document.querySelectorAll('.tile').length);
        ++n < 40 ? requestAnimationFrame(step) : requestAnimationFrame(() => requestAnimationFrame(() => done(most))) }; step() })"""
    assert browser.evaluate(scrolled) < 400
    inside = "(r => r.bottom > 0 && r.top < innerHeight)(e.getBoundingClientRect())"
    assert browser.evaluate(f"[...document.querySelectorAll('.tile')].filter(e => {inside}).length") > 30
    milliseconds = browser.evaluate(
        "(() => { const t = performance.now(); document.querySelector('.option input').click(); document.body.offsetHeight;"
        "return performance.now() - t })()"
    )
    assert milliseconds < 1000  # 10 on an idle core
    assert browser.evaluate("scrollY < 1000")  # a new selection is seen from its start
