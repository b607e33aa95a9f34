"""The map of images in a real browser: pointer, keys, legend; and hostile names."""

import numpy as np
import pytest
from explored import hostile, planted
from rich.console import Console

from imgclf import outputs
from imgclf.reporting import feature_map

OF = outputs.identity("map", "a test", "x")


def write(dataset, path):
    """Two mistakes among images that lie on a diagonal, in the order of the table."""
    table, names = dataset.table, list(dataset.class_names)
    predicted = table["class_name"].tolist()
    for row in (0, 3):
        predicted[row] = names[(names.index(predicted[row]) + 1) % len(names)]
    diagonal = np.linspace(0, 1, len(table))
    points = table[["class_name", "split"]].assign(predicted=predicted, x=diagonal, y=diagonal)
    about = {"title": "run", "source": "mobilenet on photos", "of": 2 * len(table), "kept": 0.4321, "judged": "test image"}
    return feature_map.write_page(path, dataset, points, about, of=OF, console=Console(quiet=True))


@pytest.fixture(scope="module")
def dataset():
    return planted()


@pytest.fixture(scope="module")
def page(dataset, tmp_path_factory):
    return write(dataset, tmp_path_factory.mktemp("map") / "map.html")


def selected(browser):
    return browser.evaluate("document.querySelector('#card .id')?.textContent")


def key(browser, name):
    browser.evaluate(f"document.getElementById('plane').dispatchEvent(new KeyboardEvent('keydown', {{key: {name!r}, bubbles: true}}))")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)])
def test_pointer_keys_and_legend(browser, page, dataset, width, dark):
    ids, count = dataset.table["id"].tolist(), len(dataset.table)
    assert browser.open(page, width, dark=dark) == []
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert f"{count} of {count} shown" in browser.evaluate("document.getElementById('shown').textContent")
    corner = "(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })(document.getElementById('plane'))"
    left, top, wide, high = browser.evaluate(corner)
    browser.evaluate(
        f"document.getElementById('plane').dispatchEvent(new PointerEvent('pointerdown', {{clientX: {left + 22}, clientY: {top + 22}}}))"
    )
    assert wide > 0 < high
    assert selected(browser) == ids[0]
    assert browser.evaluate("document.querySelector('#card img').alt") == f"{dataset.table['class_name'][0]}: {ids[0]}"
    assert browser.evaluate("document.querySelector('#card dd.said') !== null")  # a mistake
    key(browser, "ArrowRight")
    assert selected(browser) == ids[1]
    key(browser, "ArrowRight")
    assert selected(browser) == ids[2]
    key(browser, "ArrowLeft")
    assert selected(browser) == ids[1]
    browser.evaluate("[...document.querySelectorAll('.option')].find(e => e.title == 'only these').querySelector('input').click()")
    browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 0)")
    assert browser.evaluate("document.getElementById('shown').textContent") == f"2 of {count} shown"


def test_the_page_says_what_it_shows(page, dataset):
    text = page.read_text()
    assert f"{len(dataset.table)} images of {2 * len(dataset.table)}" in text
    assert "43.2\u00a0% are among its ten nearest here" in text
    assert f"2 of {len(dataset.table)} test images were taken for another class" in text


def test_hostile_names_stay_names(browser, tmp_path):
    page = write(hostile(), tmp_path / "map.html")
    assert browser.open(page) == []
