"""Code of the user's own, named in a config."""

import subprocess
import sys
from pathlib import Path

import pytest

from imgclf.config import user_code
from imgclf.errors import UserError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_loads_an_attribute_of_a_module_in_the_current_directory(tmp_path):
    (tmp_path / "of_mine_one.py").write_text("class Tiny:\n    def build():\n        return 'built'\n")
    assert user_code.load("of_mine_one:Tiny.build", "model.name")() == "built"
    assert user_code.load("json:dumps", "model.name")([1]) == "[1]"  # what is installed, too


def test_processes_started_later_find_the_module(tmp_path):
    (tmp_path / "of_mine_two.py").write_text("def make():\n    return 2\n")
    make = user_code.load("of_mine_two:make", "optimizer.name")
    code = f"import sys; sys.path[:] = {sys.path!r}; from {make.__module__} import make; print(make())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout == "2\n"


@pytest.mark.parametrize(
    ("source", "spec", "expected"),
    [
        ("", "mine", "is not of the form 'module:attribute'"),
        ("", ":make", "is not of the form 'module:attribute'"),
        ("", "mine:", "is not of the form 'module:attribute'"),
        ("", "of_mine_thre:make", r"no module 'of_mine_thre' in the current directory, .* \(did you mean 'of_mine_three'\?\)"),
        ("", "json.nothing:make", "no module 'json.nothing'"),
        ("def make(): pass", "of_mine_three:mke", "the module 'of_mine_three' has no 'mke'; did you mean 'make'?"),
        (
            "x = 1\nimport nowhere_at_all",
            "of_mine_four:make",
            r"ModuleNotFoundError: .*nowhere_at_all.*_four.py, line 2",
        ),
        ("def f():\n    1 / 0\nf()", "of_mine_five:make", r"fails with ZeroDivisionError: division by zero \(.*of_mine_five.py, line 2\)"),
        ("def make(:", "of_mine_six:make", r"fails with SyntaxError: .*of_mine_six.py, line 1"),
    ],
)
def test_what_cannot_be_loaded_is_told_with_its_cause(tmp_path, source, spec, expected):
    (tmp_path / "of_mine_three.py").write_text("def make(): pass")
    (tmp_path / f"{spec.partition(':')[0] or 'mine'}.py").write_text(source) if source else None
    with pytest.raises(UserError, match=expected) as caught:
        user_code.load(spec, "optimizer.name")
    assert str(caught.value).startswith(f"config.optimizer.name={spec!r}")
