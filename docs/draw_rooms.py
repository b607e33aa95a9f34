"""Draws docs/rooms.svg, the rooms of imgclf and who imports whom, from the code's own imports: `python docs/draw_rooms.py`.

The order of the rooms stands here once. tests/test_rooms.py holds the code to it, and fails where the picture is older than the code.
"""

import ast
import html
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
# Room → what happens there. A room imports only rooms that stand above it.
ROOMS = {
    "errors": "the one exception for a user's mistake",
    "formatting": "numbers and counts as text",
    "files": "atomic writes, locks, the cache folder",
    "outputs": "what may be replaced",
    "progress": "progress bars",
    "remote": "URLs read, listed, written, tried again",
    "config": "fields, their checks, flags, durations",
    "runtime": "XLA's flags, compiled programs, parallel jobs",
    "data": "images → table → splits → audit → batches",
    "openimages": "class names → selected, downloaded, cropped photos",
    "models": "a file per family, layers, pretrained weights",
    "training": "state, optimizer, step, loop, checkpoints",
    "probes": "features and linear heads on them",
    "methods": "fit, probe, probe then fine-tuning",
    "planning": "programs compiled for described TPUs and GPUs",
    "evaluation": "metrics, intervals, calibration, comparisons",
    "explanation": "what a classifier looked at, neighbours, maps",
    "reporting": "self-contained HTML pages",
    "exports": "ONNX, StableHLO, timm, Keras; the gate",
    "deploy": "a trained classifier in use",
    "serving": "a classifier behind HTTP",
    "publishing": "bundles, reproduction, model cards",
    "workflows": "each piece of work as one function",
    "studies": "arms × seeds × folds, compared",
    "image_data": "what load_images returns",
    "cli": "commands: parsing and printing only",
}
FLOORS = {  # Colour of the rooms from this one on.
    "errors": "#6b7280",
    "data": "#0f766e",
    "models": "#1d4ed8",
    "evaluation": "#7e22ce",
    "deploy": "#b45309",
}


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
    """The room of a module: "imgclf.data.table" → "data"; None for `imgclf` itself, which only says where the public names are.

    `imgclf.__main__`, which only starts the command, counts as a part of "cli".
    """
    parts = module.replace("__main__", "cli").split(".")
    return parts[1] if len(parts) > 1 else None


def edges(root: Path = ROOT) -> set[tuple[str, str]]:
    """(a room, another one that it imports)."""
    pairs = {(room(module), room(target)) for module, targets in graph(root).items() for target in targets}
    return {(here, there) for here, there in pairs if here and there and here != there}


def draw(pairs: set[tuple[str, str]]) -> str:
    """The picture as SVG: a row per room with what happens there, and a dot in the column of each room that it imports."""
    names, left, top, cell = list(ROOMS), 470, 104, 26
    width, height = left + cell * len(names) + 20, top + cell * len(names) + 44
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        '     role="img" aria-label="The rooms of imgclf, and which rooms each imports"',
        '     font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="20" y="{top - 14}" fill="#6b7280">room</text><text x="128" y="{top - 14}" fill="#6b7280">what happens there</text>',
    ]
    color = ""
    for row, name in enumerate(names):
        color = FLOORS.get(name, color)
        x, y = left + cell * row, top + cell * row
        lines += [
            f'<rect x="16" y="{y + 2}" width="{left - 24 + cell * row}" height="{cell - 4}" rx="5" fill="{color}" fill-opacity="0.08"/>',
            f'<rect x="16" y="{y + 2}" width="104" height="{cell - 4}" rx="5" fill="{color}"/>',
            f'<text x="24" y="{y + 18}" fill="#ffffff" font-weight="bold">{html.escape(name)}</text>',
            f'<text x="128" y="{y + 18}" fill="#111827">{html.escape(ROOMS[name])}</text>',
            f'<rect x="{x + 2}" y="{y + 2}" width="{cell - 4}" height="{cell - 4}" rx="5" fill="{color}"/>',
            f'<text x="{x + 17}" y="{top - 10}" fill="#374151" transform="rotate(-60 {x + 17} {top - 10})">{html.escape(name)}</text>',
        ]
        lines += [
            f'<circle cx="{left + cell * column + cell / 2:g}" cy="{y + cell / 2:g}" r="5.5" fill="{color}"/>'
            for column, other in enumerate(names)
            if (name, other) in pairs
        ]
    lines += [
        f'<text x="20" y="{height - 16}" fill="#6b7280">A dot: the row\'s room imports the column\'s. No dot stands right of the diagonal: '
        "a room knows only the rooms above it.</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(edges()), encoding="utf-8")
