"""The reference in Python: every public symbol says what it takes, gives and raises, and shows it by an example that is run here.

All examples share one folder with `photos/` in it, one trained classifier and its run, so that hardly any trains anything.
"""

import dataclasses
import doctest
import inspect
import os
import shutil
from typing import Any

import pytest
from rich.console import Console

import imgclf
from imgclf import studies
from imgclf.deploy.scoring import Evaluation
from imgclf.exports.folder import Export
from imgclf.workflows import balance, bundle, compare, label_errors, lr_find, pack, plan, reproduce, robustness, scenes, tune

ARMS = {"imgclf.studies." + name for name in ("draws", "grid", "levels", "product")}  # each returns arms: name → fields
RESULTS = [  # what functions return; those show it
    *(balance.Balanced, bundle.Bundled, compare.Comparison, Export, label_errors.LabelErrors, lr_find.LearningRates, pack.Pack, plan.Plan),
    *(reproduce.Reproduction, robustness.Robustness, scenes.FoundScenes, tune.Tuned),
]
SLOW = {
    "imgclf.Classifier.map",
    "imgclf.bundle",
    "imgclf.lr_find",
    "imgclf.reproduce",
    "imgclf.robustness",
    "imgclf.tune",
}  # a second of CPU and more


def public() -> dict[str, Any]:
    """Every public symbol by its name: what `imgclf` and `imgclf.studies` give, and the methods of what users hold in their hands."""
    found = {f"{module.__name__}.{name}": getattr(module, name) for module in (imgclf, studies) for name in module.__all__}
    found["Evaluation"] = Evaluation
    for name in ("imgclf.Classifier", "imgclf.ImageData", "Evaluation"):
        found |= {f"{name}.{own}": value for own, value in vars(found[name]).items() if own == "__getitem__" or not own.startswith("_")}
    return {name: value for name, value in found.items() if callable(value) or isinstance(value, property)}


PUBLIC = public()
SHOWN = [name for name, symbol in PUBLIC.items() if not isinstance(symbol, property)]


class Spaces(doctest.OutputChecker):
    """Takes a space that breaks no line, as before a per cent sign, for any other."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got.replace("\N{NO-BREAK SPACE}", " "), optionflags)


@pytest.fixture(scope="module")
def namespace(color_folder, color_classifier, tmp_path_factory):
    """What the examples know: `imgclf`, `data`, `train`, `test`, `classifier` and `quiet`, in a folder with photos/ and runs/photos/."""
    folder, before = tmp_path_factory.mktemp("examples"), os.getcwd()
    shutil.copytree(color_folder, folder / "photos")
    shutil.copytree(color_classifier[0].folder, folder / "runs" / "photos")
    os.chdir(folder)
    data = imgclf.load_images("photos", verbose=False)
    train, test = data.split(0.8, seed=2, verbose=False)
    yield {
        "imgclf": imgclf,
        "data": data,
        "train": train,
        "test": test,
        "classifier": imgclf.load("runs/photos"),
        "quiet": Console(quiet=True),
    }
    os.chdir(before)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SHOWN])
def test_the_example_runs(name, namespace):
    text = inspect.getdoc(PUBLIC[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(namespace), name, None, None)
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(Spaces(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not runner.run(example, out=said.append).failed, "".join(said)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_parts_are_there(name):
    """A sentence; arguments where there are some; what is returned, where something is; of a property, an example in its class's."""
    symbol = PUBLIC[name]
    text = inspect.getdoc(symbol) or ""
    assert text.partition("\n")[0].rstrip().endswith((".", ":", ",")) or len(text) > 40, f"{name}: {text!r}"
    if isinstance(symbol, property):
        owner = name.rpartition(".")[0]
        assert f".{name.rpartition('.')[2]}" in (inspect.getdoc(PUBLIC[owner]) or ""), f"{owner}'s docstring doesn't show {name}"
        return
    if inspect.isclass(symbol):
        return
    signature = inspect.signature(symbol)
    described = text.partition("Args:")[2]
    for parameter in signature.parameters:
        assert parameter == "self" or f"{parameter}" in (described or text), f"{name} doesn't describe {parameter}"
    returns = str(signature.return_annotation)
    assert returns == "None" or "Returns:" in text or name in ARMS or any(result.__name__ in returns for result in RESULTS), name


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.__name__)
def test_the_fields_of_results_are_described(result):
    described = (inspect.getdoc(result) or "").partition("Attributes:")[2]
    assert [field.name for field in dataclasses.fields(result) if field.name not in described] == []


def test_the_site_shows_every_symbol(root):
    """On the page of the reference, by its name or with its class's members."""
    page = (root / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = {line.split("::")[1].strip() for line in page.splitlines() if line.startswith(".. auto")}
    symbols = {f"{module.__name__}.{name}" for module in (imgclf, studies) for name in module.__all__}
    results = {f"{result.__module__}.{result.__name__}" for result in [*RESULTS, Evaluation]}
    assert sorted((symbols | results) - shown) == []
