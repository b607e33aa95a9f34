"""Atomic writes and locks are made in imgclf/files.py alone, progress bars in imgclf/progress.py, and waits between tries by urllib3."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "imgclf"

# What is made in one place: a name that is imported or called, and the file that may.
IMPORTS = {"fcntl": "files.py", "filelock": "files.py", "rich.progress": "progress.py", "urllib3.util.retry": "remote/retrying.py"}
CALLS = {
    "os.replace": "files.py",
    "os.rename": "files.py",
    "tempfile.mkdtemp": "files.py",
    "tempfile.mkstemp": "files.py",
    "tempfile.NamedTemporaryFile": "files.py",
    "time.sleep": "remote/retrying.py",  # as long as urllib3's Retry says
}
# What is something else, by the file that does it.
KNOWN = {
    "probes/feature_store.py": {"fcntl", "time.sleep"},  # while it waits, it tells the user, and notices that the cache was cleared
    "runtime/partners.py": {"time.sleep"},  # while it listens for the other processes
    "training/checkpoint.py": {"a file that is renamed"},  # a damaged checkpoint steps aside
}


def own_ways(path: Path) -> set[str]:
    """Finds what a module does by itself that has its one place elsewhere."""
    name = str(path.relative_to(PACKAGE))
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {module for module in modules if IMPORTS.get(module, name) != name}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {called} if CALLS.get(called, name) != name else set()
            if name != "files.py" and _is_move(node):
                found.add("a file that is renamed")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".part") and name != "files.py":
            found.add("a name for an unfinished file")
    return found


def _is_move(call: ast.Call) -> bool:
    """Tells whether this is `Path.replace(target)` or `Path.rename(target)`, by what else has methods of these names."""
    if not isinstance(call.func, ast.Attribute) or len(call.args) != 1 or call.keywords:
        return False
    argument = call.args[0]
    if call.func.attr == "rename":  # a Series takes a text
        return not isinstance(argument, (ast.Constant, ast.Dict))
    return call.func.attr == "replace" and ast.unparse(call.func) != "dataclasses.replace" and not isinstance(argument, ast.Dict)


def test_each_thing_is_made_in_one_place():
    found = {str(path.relative_to(PACKAGE)): own_ways(path) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {name: ways for name, ways in found.items() if ways - KNOWN.get(name, set())} == {}
    assert {name: ways for name, ways in KNOWN.items() if ways - found.get(name, set())} == {}, "no longer so: take them off the list"


def test_the_search_finds_each_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    module = tmp_path / "module.py"
    for code, way in {
        "import fcntl": "fcntl",
        "from rich.progress import Progress": "rich.progress",
        "from rich import progress": "rich.progress",
        "os.replace(aside, path)": "os.replace",
        "aside.replace(path)": "a file that is renamed",
        "part.rename(path.with_suffix('.csv'))": "a file that is renamed",
        "aside = path.with_name(f'{path.name}.part')": "a name for an unfinished file",
        "time.sleep(2**attempt)": "time.sleep",
    }.items():
        module.write_text(code)
        assert own_ways(module) == {way}, code
    for code in ("text.replace('a', 'b')", "dataclasses.replace(options, workers=2)", "table.replace({'a': 'b'})", "series.rename('a')"):
        module.write_text(code)
        assert own_ways(module) == set(), code
