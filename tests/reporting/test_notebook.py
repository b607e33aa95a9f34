"""What a notebook shows: of an evaluation, of a classifier, and pages below a cell."""

import json
import re

import pytest

from imgclf.errors import UserError
from imgclf.reporting import leaderboard, notebook
from imgclf.studies.summary import Summary

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


def test_a_leaderboard_says_what_is_kept(tmp_path):
    row = dict.fromkeys(leaderboard.COLUMNS)
    tried = row | {"name": "<probe>", "top1": 0.9, "low": 0.8, "high": 0.95, "n": 60, "seconds": 4.0, "decision": "kept", "kept": True}
    late = row | {"name": "lp_ft", "decision": "there was no time", "kept": False}
    (tmp_path / leaderboard.FILE).write_text(json.dumps({"rows": [tried, late], "time_limit": 60, "seconds": 5}))
    table = leaderboard.read(tmp_path)
    page = table._repr_html_()
    assert "<strong>&lt;probe&gt;</strong>" in page
    assert "90.0\N{NO-BREAK SPACE}% (80.0–95.0\N{NO-BREAK SPACE}%)" in page
    assert "<td style='text-align:left'>lp_ft</td><td style=text-align:left>–</td>" in page
    assert "there was no time" in page
    assert "Leaderboard" not in str(table)  # a plain table in a terminal


def test_a_study_says_its_question_its_differences_and_what_to_take():
    arm = {"top1": 0.9, "top1_ci95": (0.85, 0.94), "seed_sd": None, "images": 200, "train_seconds": 3.0, "train_flops": None}
    compared = {"difference": -0.042, "difference_ci95": (-0.08, 0.01), "p_holm": 0.2, "tie": True, "images_needed": 900}
    found = Summary(
        {
            "question": "Does <flipping> help?",
            "baseline": "plain",
            "arms": {"plain": arm, "flip": arm},
            "comparisons": {"flip": compared},
            "best": {"arm": "plain", "why": "the baseline", "command": "imgclf train best.json"},
            "search": None,
            "failures": [],
        }
    )
    page = found._repr_html_()
    assert "Does &lt;flipping&gt; help?" in page
    assert "−4.2 points (−8.0 to +1.0), a tie" in page
    assert "Take <strong>plain</strong>: the baseline." in page
    assert repr(found).splitlines()[-1] == "Take plain: the baseline. To run it: imgclf train best.json"


@pytest.mark.slow
def test_a_notebook_runs_and_leaves_nothing_behind(color_folder, tmp_path):
    """In a kernel of its own: what cells show, the bar of slow work, and the working directory."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [
        "import time, imgclf\nfrom rich.console import Console\nfrom imgclf import progress",
        f"data = imgclf.load_images({str(color_folder)!r}, verbose=False)\ndata",
        "page = data.explore(inline=True, verbose=False)\ndata.explore(verbose=False).exists()",
        "progress.NOTEBOOK_SECONDS = 0.05\n"
        "with progress.bar(Console()) as bar:\n    bar.add_task('Counting sheep', total=10, completed=3)\n"
        "    time.sleep(0.3)\n    print('among them')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    changed: list[str] = []
    client = nbclient.NotebookClient(book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    heard = client.process_message

    def hearing(message, cell, index):
        changed.append(str(message["content"].get("data", {}).get("text/plain", "")))
        return heard(message, cell, index)

    client.process_message = hearing
    client.execute()
    _, shown, paged, barred = (cell["outputs"] for cell in book["cells"])
    assert "<img src=" in shown[0]["data"]["text/html"]
    assert paged[0]["data"]["text/html"].startswith("<iframe srcdoc=")
    assert paged[-1]["data"]["text/plain"] == "True"
    assert any("Counting sheep: 3/10" in text for text in changed)
    assert [output["data"]["text/html"] for output in barred if "data" in output] == [""]  # it has vanished
    assert [path.name for path in tmp_path.iterdir()] == []
