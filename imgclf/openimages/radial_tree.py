"""The class hierarchy as a radial tree: one page, no script, nothing fetched from anywhere (after Vega's example "Radial Tree Layout")."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vl_convert

from imgclf import files
from imgclf.openimages.classes import Classes

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 2000px; padding: 16px; font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; }}
h1 {{ font-size: 22px; margin: 0 0 4px; }}
p {{ margin: 0 0 8px; max-width: 75ch; }}
figure {{ margin: 0; overflow: auto; }}
svg {{ width: 100%; height: auto; min-width: {narrow}px; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6e9ee; background: #14181e; }}
  svg text {{ fill: #e6e9ee; }}
  svg path[stroke="#c8ced6"] {{ stroke: #4a5461; }}
}}
@media print {{ svg {{ min-width: 0; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
<figure role="img" aria-label="{title}">{svg}</figure>
</body>
</html>
"""


def write_page(classes: Classes, path: Path, label: str | None = None, counts: Mapping[str, int] | None = None) -> Path:
    """Writes the tree below `label` (None = the whole hierarchy) as an HTML page.

    A class with several parents stands under each of them. A point's area follows the number of boxes where counts are given.

    Args:
      counts: label → number of boxes.

    Returns:
      The path of the page.
    """
    label = label or classes.root
    nodes = _nodes(classes, label, counts or {})
    leaves = len(nodes) - len({node["parent"] for node in nodes})
    radius = int(max(180, leaves * 1.22))  # 7.7 px of the circumference for each
    svg = vl_convert.vega_to_svg(_spec(nodes, radius, bool(counts)))
    name = classes.names[label]
    several = sum(len(parents) > 1 for one, parents in classes.parents.items() if one in classes.expand(label))
    unique = len(classes.expand(label)) - (label == classes.root)  # the root is no class
    text = f"{unique} {'class' if unique == 1 else 'classes'}; each class includes those farther out."
    if several:
        text += f" {several} of them stand under more than one parent."
    if counts:
        text += " A point's area follows the number of boxes."
    title = "Open Images: class hierarchy" if label == classes.root else f"Open Images: {name}"
    page = _PAGE.format(title=html.escape(title), text=html.escape(text), svg=svg, narrow=min(1500, 2 * radius))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, page)
    return path


def _nodes(classes: Classes, label: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The unfolded tree: a node per way from the top; a way never passes a class twice."""
    nodes: list[dict[str, Any]] = []
    waiting: list[tuple[str, int | None, tuple[str, ...]]] = [(label, None, ())]
    while waiting:
        one, parent, way = waiting.pop()
        number = len(nodes)
        nodes.append({"id": number, "parent": parent, "name": classes.names.get(one, one), "boxes": counts.get(one, 0)})
        below = sorted(classes.children.get(one, ()), key=lambda child: classes.names.get(child, child), reverse=True)
        waiting += [(child, number, (*way, one)) for child in below if child not in way and child != one]
    return nodes


def _spec(nodes: list[dict[str, Any]], radius: int, sized: bool) -> dict[str, Any]:
    size = 2 * radius + 200  # room for the outermost names
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
                    {"type": "tree", "method": "cluster", "size": [1, radius], "as": ["alpha", "radius", "depth", "children"]},
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
        "scales": [{"name": "area", "type": "sqrt", "domain": {"data": "tree", "field": "boxes"}, "range": [8, 90]}],
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
                        "size": {"scale": "area", "field": "boxes"} if sized else {"value": 22},
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
                        "fontSize": {"value": 9 if len(nodes) < 150 else 7},
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
