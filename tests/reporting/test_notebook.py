"""What a notebook shows: of an evaluation, of a classifier, and pages below a cell."""

import re

import pytest

from imgclf.errors import UserError
from imgclf.reporting import notebook

IPython = pytest.importorskip("IPython")


@pytest.fixture(scope="module")
def test_images(color_classifier):
    return color_classifier[1][1]


@pytest.fixture
def shell(monkeypatch):
    """Cells have a shell; what is shown is kept."""
    shown = []
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data["text/html"]))
    return shown


def test_an_evaluation_says_its_interval_and_its_warnings(color_classifier, test_images):
    result = color_classifier[0].evaluate(test_images, verbose=False)
    result["warnings"] = ["<b> was trained on"]
    page = result._repr_html_()
    low, high = result["top1_ci95"]
    assert f"{result['n']} images right" in page
    assert "&lt;b&gt; was trained on" in page
    x = re.search(r"M([\d.]+) 6H([\d.]+)", page)
    assert (float(x[1]), float(x[2])) == pytest.approx((320 * low, 320 * high), abs=0.1)
    assert all(f"<td style='text-align:left'>{name}</td>" in page for name in result["per_class"])


def test_the_worst_classes_of_many_are_shown():
    per_class = {f"class {k:02d}": {"recall": k / 40, "precision": None, "support": 3, "f1": 0.0} for k in range(40)}
    results = {"top1": 0.5, "top1_ci95": (0.4, 0.6), "n": 120, "per_class": per_class, "balanced_accuracy": 0.5, "macro_f1": 0.4}
    page = notebook.evaluation(results)
    assert re.findall(r"class \d\d", page) == [f"class {k:02d}" for k in range(notebook.CLASSES)]
    assert "of 40" in page


def test_a_classifier_says_what_it_is(color_classifier):
    page = color_classifier[0]._repr_html_()
    assert color_classifier[0].config.model.name in page
    assert "95" in page


def test_pages_are_shown_inline_and_leave_nothing_behind(color_classifier, test_images, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = test_images.explore(inline=True, verbose=False)
    color_classifier[0].mistakes(test_images, inline=True, verbose=False)
    assert [frame.startswith("<iframe srcdoc=") for frame in shell] == [True, True]
    assert page.exists()
    assert list(tmp_path.iterdir()) == []


def test_outside_of_a_notebook_the_error_names_the_page(test_images):
    with pytest.raises(UserError, match=r"this is none: open .*explore.html in a browser"):
        test_images.explore(inline=True, verbose=False)
