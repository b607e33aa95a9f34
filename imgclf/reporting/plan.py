"""What a plan leaves: plan.json, and plan.html, one page without scripts; and the table that the terminal shows as well."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgclf import config as config_lib
from imgclf import files, formatting, outputs
from imgclf.config import Config
from imgclf.planning.verdict import WALLS, size
from imgclf.reporting import pages

PAGE = "plan.html"
LEGEND = (
    "Bounds: a step is at least as long as its products at the matrix units' peak, as its traffic at the memory's, as its messages at the "
    "links' in one direction, each as if it ran wholly beside the others; so rates are at most, and hours at least, what stands here. "
    "Nothing was run. FLOP, traffic and messages are counted from the compiled program; on GPUs the traffic is an estimate, as caches may "
    "serve a part of it, and the memory leaves out what cuDNN takes while it works."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A quantity, of each topology.

    Attributes:
      label: its name.
      kind: what it is: "counted", "at least", "at most", "estimate", "compiler" (the compiler's own figure) or "" (given).
      values: as text, in the topologies' order.
      strong: whether it is one that the reader looks for.
    """

    label: str
    kind: str
    values: tuple[str, ...]
    strong: bool = False


def identity(config: Config) -> outputs.Identity:
    """What a page of a plan for a config is of."""
    return outputs.identity("plan", f"{config.name}, {config.model.name}", config_lib.digest(config), config.data.path)


def write(page: Path, of: outputs.Identity, results: Mapping[str, Any]) -> Path:
    """Writes the page, and beside it the same name with .json.

    Args:
      page: its path; the folder is made, and what stands there is replaced: see `outputs.check_file`.
      of: what it is of, see `identity`.
      results: what `workflows.plan.plan` has found.

    Returns:
      The path of the page.

    Raises:
      UserError: if they can't be written.
    """
    context = {
        "style": pages.source("report.css") + pages.source("plan.css"),
        "plan": results,
        "rows": rows(results),
        "bars": [_bars(one) for one in results["topologies"]],
        "legend": LEGEND,
        "size": size,
        "sources": {one["chip"]["title"]: one["chip"] for one in results["topologies"]},
    }
    written = pages.write(page, "plan.html.j2", context, of)
    files.write_json(page.with_suffix(".json"), dict(results))
    return written


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The table of a plan; rows that no topology has a value for are left out."""
    found = []
    for label, kind, value, strong in _ROWS:
        values = tuple(_shown(value, one) for one in results["topologies"])
        if any(text != formatting.NONE for text in values):
            found.append(Row(label, kind, values, strong))
    return found


def _shown(value: Callable[[Mapping[str, Any]], str], topology: Mapping[str, Any]) -> str:
    try:
        return value(topology)
    except (KeyError, TypeError):  # it isn't known for this topology, or program
        return formatting.NONE


def _program(topology: Mapping[str, Any], name: str = "") -> Mapping[str, Any]:
    """The program of this name; "" = the one that matters most: the training step, else the first."""
    by_name = {one["name"]: one for one in topology["programs"]}
    return by_name[name] if name else by_name.get("train", topology["programs"][0])


def _needed(one: Mapping[str, Any]) -> float:
    return one["needed"] if "needed" in one else one["memory"]["total"]


def _fits(topology: Mapping[str, Any]) -> str:
    if topology["fits"] is None:
        return "not compiled"
    largest = max(map(_needed, topology["programs"]))
    return f"{'fits' if topology['fits'] else 'does not fit'}: {size(largest)} of {size(topology['chip']['usable_bytes'])}"


def _messages(one: Mapping[str, Any]) -> str:
    sent = one["collectives"]
    return "none" if not sent["count"] else f"{size(sent['bytes'])} in {sent['count']:,}"


def _milliseconds(seconds: float) -> str:
    return f"{formatting.number(float(1000 * seconds))} ms"


def _rate(value: float) -> str:
    return f"{value:,.0f} images/s"


def _ways(topology: Mapping[str, Any]) -> str:
    return " × ".join(f"{name} {size}" for name, size in topology["mesh"].items() if size > 1 or name == "data")


_ROWS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str], bool], ...] = (
    ("chips", "", lambda t: f"{formatting.count(t['chips'], 'chip')}, {formatting.count(t['hosts'], 'host')}", False),
    ("mesh", "", _ways, False),
    ("batch", "", lambda t: f"{t['batch_size']:,}: {t['batch_per_chip']:,g} a chip", False),
    ("memory of a chip", "compiler", _fits, True),
    ("… arguments", "compiler", lambda t: size(_program(t)["memory"]["arguments"]), False),
    ("… temporaries", "compiler", lambda t: size(_program(t)["memory"]["temporaries"]), False),
    ("FLOP of products, a chip", "counted", lambda t: formatting.flops(sum(_program(t)["flops"].values())), False),
    ("memory traffic, a chip", "counted", lambda t: size(_program(t)["memory_bytes"]), False),
    ("messages among chips", "counted", lambda t: _messages(_program(t)), False),
    ("time of products", "at least", lambda t: _milliseconds(_program(t)["seconds"]["products"]), False),
    ("time of memory traffic", "at least", lambda t: _milliseconds(_program(t)["seconds"]["memory"]), False),
    ("time of messages", "at least", lambda t: _milliseconds(_program(t)["seconds"]["links"]), False),
    ("step", "at least", lambda t: f"{_milliseconds(t['summary']['step_seconds'])} ({WALLS[t['summary']['wall']]})", True),
    ("step, by the compiler", "estimate", lambda t: _milliseconds(t["summary"]["estimated_step_seconds"]), False),
    ("speed, by that", "estimate", lambda t: _rate(t["batch_size"] / t["chips"] / t["summary"]["estimated_step_seconds"]), False),
    ("matrix units busy", "at most", lambda t: formatting.percent(t["summary"]["matrix_units_busy"], 0), False),
    ("speed, a chip", "at most", lambda t: _rate(t["summary"]["images_per_second_per_chip"]), True),
    ("speed, all chips", "at most", lambda t: _rate(t["summary"]["images_per_second"]), False),
    ("features, a chip", "at most", lambda t: _rate(t["summary"]["features_images_per_second_per_chip"]), False),
    ("evaluation, a chip", "at most", lambda t: _rate(t["summary"]["eval_images_per_second_per_chip"]), False),
    ("each host's loader gives", "to reach it", lambda t: _rate(t["summary"]["loader_images_per_second_per_host"]), True),
    ("whole training", "at least", lambda t: formatting.duration(3600 * t["summary"]["hours"]), True),
)


def _bars(topology: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The three bounds of the most important program as shares of the longest, for a picture."""
    one = _program(topology)
    if "seconds" not in one:
        return []
    longest = one["bound_seconds"]
    return [
        {"wall": WALLS[name], "text": _milliseconds(value), "share": value / longest if longest else 0.0, "is_wall": name == one["wall"]}
        for name, value in one["seconds"].items()
    ]
