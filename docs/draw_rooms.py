"""Draws docs/rooms.svg, the rooms of imgclf and who imports whom, from the code's own imports: `python docs/draw_rooms.py`.

The order of the rooms stands here once. tests/test_rooms.py holds the code to it, and fails where the picture is older than the code.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A room imports only rooms that stand before it. Rooms of one level are drawn side by side.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "formatting", "files", "progress"),
    ("config", "runtime"),
    ("data", "openimages"),
    ("models",),
    ("training",),
    ("probes",),
    ("methods",),
    ("evaluation",),
    ("reporting",),
    ("deploy",),
    ("workflows",),
    ("studies",),
    ("image_data",),
    ("cli",),
)
ROOMS = tuple(room for level in LEVELS for room in level)


def modules(root: Path = ROOT) -> dict[str, Path]:
    """The package's modules by dotted name; a package is its `__init__.py`."""
    names = {}
    for path in sorted((root / "imgclf").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(source: str, known: set[str], package: str = "imgclf") -> set[str]:
    """The modules of the package that a source text imports, those imported inside of functions or for type checkers only included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"line {node.lineno}: relative imports are not used here: {ast.unparse(node)}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
    return found


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Module → modules that it imports."""
    known = modules(root)
    return {name: imports(path.read_text(encoding="utf-8"), set(known)) - {name} for name, path in known.items()}


def room(module: str) -> str | None:
    """The room of a module: "imgclf.data.table" → "data"; None for `imgclf` itself, which only says where the public names are."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None
