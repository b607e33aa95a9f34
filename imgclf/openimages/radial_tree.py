"""The class hierarchy as a radial tree: one page, no script, nothing fetched from anywhere (after Vega's example "Radial Tree Layout")."""

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert

from imgclf import files, formatting, outputs
from imgclf.openimages.classes import Classes

_WIDEST = 1220  # pixels, so that all of it is seen in a window of 1280
_FONT = 12.0  # pixels: what is easy to read
_LETTER = 0.56  # the mean width of a letter, as a share of the font size

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1c2430; --line: #c8ced6; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #14181e; --ink: #e6e9ee; --line: #4a5461; }} }}
body {{ margin: 0; padding: 16px; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }}
h1 {{ font-size: 22px; margin: 0 0 4px; }}
p {{ margin: 0 0 8px; max-width: 75ch; }}
figure {{ margin: 0; overflow: auto; }}
svg {{ display: block; margin: 0 auto; width: 100%; max-width: {width}px; height: auto; }}
svg text {{ fill: var(--ink); stroke: var(--paper); stroke-width: .2em; paint-order: stroke; }}
svg path[stroke="#c8ced6"] {{ stroke: var(--line); }}
#large:checked ~ figure {{ overflow: visible; }}
#large:checked ~ figure svg {{ width: {large}px; max-width: none; }}
@media print {{ #large, label {{ display: none; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
{switch}<figure role="img" aria-label="{title}">{svg}</figure>
</body>
</html>
"""
_SWITCH = '<input type="checkbox" id="large"><label for="large"> Large enough to read every name; scroll to see the rest</label>\n'


def write_page(
    classes: Classes, path: Path, label: str | None = None, counts: Mapping[str, int] | None = None, *, overwrite: bool = False
) -> Path:
    """Writes the tree below `label` (None = the whole hierarchy) as an HTML page.

    A class with several parents stands under each of them. Where there are counts, the area of a point follows the number of boxes. The
    tree fits a window of 1280 pixels; where its names are small then, a switch on the page enlarges them.

    Args:
      counts: label → number of boxes.
      overwrite: whether to replace another file than a tree of the same class.

    Returns:
      The path of the page.

    Raises:
      UserError: if something else is at that path.
    """
    label = label or classes.root
    title = "Open Images: class hierarchy" if label == classes.root else f"Open Images: {classes.names[label]}"
    of = outputs.identity("class tree", title, label)
    path = outputs.check_file(path, of, overwrite=overwrite)
    nodes = _nodes(classes, label, counts or {})
    size, radius, font = _measures(nodes)
    svg = vl_convert.vega_to_svg(_spec(nodes, size, radius, font, bool(counts)))
    several = sum(len(parents) > 1 for one, parents in classes.parents.items() if one in classes.expand(label))
    unique = len(classes.expand(label)) - (label == classes.root)  # the root is no class
    text = f"{formatting.count(unique, 'class', 'classes')}; each class includes those farther out."
    if several:
        text += f" {several} of them {'stands' if several == 1 else 'stand'} under more than one parent."
    if counts:
        text += " A point's area follows the number of boxes."
    page = _PAGE.format(
        mark=outputs.mark(of),
        title=html.escape(title),
        text=html.escape(text),
        svg=svg,
        width=size,
        large=round(size * _FONT / font),
        switch=_SWITCH if font < _FONT else "",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, page)
    return path


def _measures(nodes: list[dict[str, Any]]) -> tuple[int, int, float]:
    """Returns the picture's edge, the tree's radius and the font size, in pixels.

    Names are not to overlap: neither side by side around the circle, nor with the next ring. Where the picture would become too wide for
    that, the circle and the font shrink together.
    """
    parents = {node["parent"] for node in nodes}
    leaves = [len(node["name"]) for node in nodes if node["id"] not in parents]
    inner = [len(node["name"]) for node in nodes if node["id"] in parents]
    # As multiples of the font size: the radius that the names around the circle need, and the one that those along a way outward need.
    around = 1.15 * len(leaves) / (2 * math.pi)
    along = max(node["depth"] for node in nodes) * (_LETTER * max(inner, default=0) + 2.0)
    beside = _LETTER * max(leaves) + 1.0  # from the circle to the end of the longest name, likewise
    font = min(_FONT, _WIDEST / 2 / (max(around, along) + beside))
    radius = max(around, along) * font
    return math.ceil(2 * (radius + beside * font)), math.floor(radius), font


def _nodes(classes: Classes, label: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Unfolds the hierarchy into a tree: a node for each way from the top; a way never passes a class twice."""
    nodes: list[dict[str, Any]] = []
    waiting: list[tuple[str, int | None, tuple[str, ...]]] = [(label, None, ())]
    while waiting:
        one, parent, way = waiting.pop()
        number = len(nodes)
        nodes.append({"id": number, "parent": parent, "name": classes.names.get(one, one), "boxes": counts.get(one, 0), "depth": len(way)})
        below = sorted(classes.children.get(one, ()), key=lambda child: classes.names.get(child, child), reverse=True)
        waiting += [(child, number, (*way, one)) for child in below if child not in way and child != one]
    return nodes


def _spec(nodes: list[dict[str, Any]], size: int, radius: int, font: float, sized: bool) -> dict[str, Any]:
    """Returns the Vega specification of the picture."""
    middle = size / 2
    reach = "sqrt(scale('area', datum.boxes)) / 2" if sized else "2.5"
    return {
        "$schema": "https://vega.github.io/schema/vega/v5.json",
        "width": size,
        "height": size,
        "padding": 0,
        "background": None,
        "data": [
            {
                "name": "tree",
                "values": nodes,
                "transform": [
                    {"type": "stratify", "key": "id", "parentKey": "parent"},
                    {
                        "type": "tree",
                        "method": "cluster",
                        "size": [1, radius],
                        "separation": False,
                        "as": ["alpha", "radius", "level", "children"],
                    },
                    {"type": "formula", "expr": "2 * PI * datum.alpha - PI / 2", "as": "radians"},
                    {"type": "formula", "expr": "datum.radians > PI / 2", "as": "left"},
                    {"type": "formula", "expr": f"{middle} + datum.radius * cos(datum.radians)", "as": "x"},
                    {"type": "formula", "expr": f"{middle} + datum.radius * sin(datum.radians)", "as": "y"},
                ],
            },
            {
                "name": "links",
                "source": "tree",
                "transform": [
                    {"type": "treelinks"},
                    {
                        "type": "linkpath",
                        "shape": "diagonal",
                        "orient": "radial",
                        "sourceX": "source.radians",
                        "sourceY": "source.radius",
                        "targetX": "target.radians",
                        "targetY": "target.radius",
                    },
                ],
            },
        ],
        "scales": [
            {"name": "area", "type": "sqrt", "domain": {"data": "tree", "field": "boxes"}, "range": [4, 90 if font == _FONT else 50]}
        ],
        "marks": [
            {
                "type": "path",
                "from": {"data": "links"},
                "encode": {
                    "update": {"x": {"value": middle}, "y": {"value": middle}, "path": {"field": "path"}, "stroke": {"value": "#c8ced6"}}
                },
            },
            {
                "type": "symbol",
                "from": {"data": "tree"},
                "encode": {
                    "enter": {
                        "size": {"scale": "area", "field": "boxes"} if sized else {"value": 2 * font},
                        "fill": {"value": "#2f6fb2"},
                        "x": {"field": "x"},
                        "y": {"field": "y"},
                    }
                },
            },
            {
                "type": "text",
                "from": {"data": "tree"},
                "encode": {
                    "enter": {
                        "text": {"field": "name"},
                        "font": {"value": "system-ui, sans-serif"},
                        "fontSize": {"value": font},
                        "fill": {"value": "#1c2430"},
                        "baseline": {"value": "middle"},
                        "x": {"field": "x"},
                        "y": {"field": "y"},
                        "dx": {"signal": f"(datum.left ? -1 : 1) * (3 + {reach})"},
                        "angle": {"signal": "datum.left ? 180 * datum.radians / PI - 180 : 180 * datum.radians / PI"},
                        "align": {"signal": "datum.left ? 'right' : 'left'"},
                    }
                },
            },
        ],
    }
