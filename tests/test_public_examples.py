"""The reference in Python: every public symbol says what it takes, gives and raises, and shows it by an example that is run here.

All examples share one folder with `photos/` in it, one trained classifier and its run, so that hardly any trains anything.
"""

import ast
import dataclasses
import doctest
import inspect
import os
import re
import shutil
import textwrap
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


# What a docstring that speaks of a published method says of where it comes from.
SOURCES = {
    r"HiResCAM": r"Draelos and Carin, 2020",
    r"t-SNE|in the plane": r"van der Maaten and Hinton, 2008",
    r"\blp_ft\b|LP-FT": r"Kumar et al\., 2022",
    r"ImageNet-C|corrupt": r"Hendrycks and Dietterich, 2019",
    r"conformal": r"Sadinle et al\., 2019",
    r"for wrong labels": r"Northcutt et al\., 2021",
    r"learning rate.*rise": r"Smith, 2017",
    r"paired test|McNemar": r"McNemar, 1947",
    r"with its interval": r"Wilson, 1927",
    r"\btpe\b": r"Bergstra et al\., 2011",
    r"\basha\b": r"Li et al\., 2020",
}
ARRAY = re.compile(r"\b(?:bool|u?int\d+|float\d+)\b(?: or \w+)? \[\w+(?:, \w+)*\]")  # such as uint8 [height, width, 3]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_published_method_has_its_source(name):
    text = " ".join((inspect.getdoc(PUBLIC[name]) or "").split())
    assert [source for method, source in SOURCES.items() if re.search(method, text) and not re.search(source, text)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_arrays_have_shapes_and_dtypes(name):
    """Wherever a signature or a docstring speaks of arrays; of a table, what stands in its columns."""
    symbol = PUBLIC[name]
    text = inspect.getdoc(symbol) or ""
    signature = "" if inspect.isclass(symbol) else str(inspect.signature(symbol.fget if isinstance(symbol, property) else symbol))
    if re.search(r"\barrays?\b|ndarray", f"{signature} {text}"):
        assert ARRAY.search(text), f"{name} doesn't say of its arrays their dtypes and shapes"
    if signature.endswith("DataFrame") or "DataFrame'>" in signature:
        columns = (text.partition("Returns:")[2] or text).partition("Raises:")[0]
        assert len(re.findall(r"`\w+`|\b(?:id|reason|detail|label|width)\b", columns)) >= 3, f"{name} doesn't name the table's columns"


def raised_by(function: Any, seen: set[Any]) -> bool:
    """Whether a UserError stands in a function's code, or in that of the functions of imgclf that it calls by name, and so on."""
    function = inspect.unwrap(function)
    if function in seen or not str(getattr(function, "__module__", "")).startswith("imgclf"):
        return False
    seen.add(function)
    if inspect.isclass(function):
        makers = [vars(function).get(own) for own in ("__init__", "__post_init__")]
        return any(raised_by(own, seen) for own in makers if inspect.isfunction(own) and own.__code__.co_filename != "<string>")
    if not inspect.isfunction(function):
        return False
    known = inspect.getclosurevars(function)
    names = known.globals | known.nonlocals
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if any(isinstance(node, ast.Raise) and node.exc is not None and "UserError(" in ast.unparse(node.exc) for node in ast.walk(tree)):
        return True
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in called:
        found = names.get(call.id) if isinstance(call, ast.Name) else None
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name):
            found = getattr(names.get(call.value.id), call.attr, None)
        if found is not None and raised_by(found, seen):
            return True
    return False


@pytest.mark.parametrize("name", PUBLIC)
def test_a_users_mistake_is_announced(name):
    """Who raises a UserError, itself or by what it calls, has a section Raises that says so."""
    symbol = PUBLIC[name]
    if raised_by(symbol.fget if isinstance(symbol, property) else symbol, set()):
        assert "UserError:" in (inspect.getdoc(symbol) or "").partition("Raises:")[2], f"{name} doesn't say when it raises a UserError"


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
