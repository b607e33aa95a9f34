"""The rooms of the package: who may import whom, and what importing costs."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("draw_rooms", Path(__file__).resolve().parents[1] / "docs" / "draw_rooms.py")
assert _spec
assert _spec.loader
draw_rooms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw_rooms)

EXPECTED: set[tuple[str, str]] = set()  # imports that are to be mended


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of nodes, sorted, of which each reaches each other one (Tarjan's strongly connected components of two and more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def modules_after(statements: str) -> set[str]:
    """What `sys.modules` holds in a fresh process after these statements."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_imports_are_found_wherever_they_stand():
    source = """
import imgclf.files
from imgclf.data import table, Missing
from imgclf import UserError
import json, imgclf.config.fields as fields
def lazy():
    from imgclf.models.registry import find
"""
    known = {"imgclf", "imgclf.files", "imgclf.data", "imgclf.data.table", "imgclf.config.fields", "imgclf.models.registry"}
    assert draw_rooms.imports(source, known) == known
    with pytest.raises(ValueError, match="relative"):
        draw_rooms.imports("from . import table", known)


def test_a_room_imports_only_rooms_to_its_left():
    order = {room: place for place, room in enumerate(draw_rooms.ROOMS)}
    graph = draw_rooms.graph()
    assert {draw_rooms.room(module) for module in graph} == {None, *draw_rooms.ROOMS}, "a room without a place in docs/draw_rooms.py"
    wrong = set()
    for module, targets in graph.items():
        for target in targets:
            # The package's `__init__` names what is public, from every room; a module that imports it would depend on all of them.
            here, there = draw_rooms.room(module), draw_rooms.room(target)
            if here is not None and (there is None or order[there] > order[here]):
                wrong.add((module, target))
    assert wrong <= EXPECTED


def test_the_picture_of_the_rooms_is_that_of_the_code():
    assert draw_rooms.PICTURE.read_text(encoding="utf-8") == draw_rooms.draw(draw_rooms.edges()), "run: python docs/draw_rooms.py"


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert sorted(circles({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}})) == [["a", "b"], ["c", "d"]]


def test_modules_import_each_other_in_no_circle():
    assert circles(draw_rooms.graph()) == []


def test_data_and_openimages_need_no_jax():
    names = [name for name in draw_rooms.modules() if draw_rooms.room(name) in ("data", "openimages")]
    assert len(names) > 20
    # None makes importing them fail. (Where JAX is there, grain imports its profiler by itself.)
    without = "import sys; sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'optax', 'orbax')))"
    assert set(names) <= modules_after("\n".join([without, *(f"import {name}" for name in names)]))


def test_importing_imgclf_is_quick():
    loaded = modules_after("import imgclf")
    assert loaded.isdisjoint({"jax", "flax", "numpy", "pandas", "PIL", "scipy", "sklearn"})


def test_nothing_loads_pickles_or_another_framework():
    rejected = {"pickle", "cloudpickle", "dill", "torch", "torchvision", "tensorflow"}
    for name, path in draw_rooms.modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").partition(".")[0]}
            else:
                continue
            assert not roots & rejected, f"{name}, line {node.lineno}"
    assert not [target for targets in draw_rooms.graph().values() for target in targets if target.startswith("imgclf.exports.programs.")]
