"""From what programs take to what a user should know: do they fit, what holds them up, how long is a training at least?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from imgclf import formatting
from imgclf.config import Config
from imgclf.planning.programs import EVAL, FEATURES, TRAIN, training_plan
from imgclf.planning.topologies import Topology

WALLS = {"products": "matrix units", "memory": "memory bandwidth", "links": "links between chips"}
_SMALL_BATCH = 16  # images: a TPU's tiles hold 8 float32 or 16 bfloat16 rows, which maps' batches are laid along
_REMAT = (("backbone/.+", "all"),)  # each of the backbone's parts keeps no more than what it is given
_MIB, _GIB = 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much data there is.

    Attributes:
      classes: of the data.
      train: images that are trained on.
      evaluated: images that an evaluation during training shows; None = not known.
      source: where the numbers come from, for people.
    """

    classes: int
    train: int
    evaluated: int | None
    source: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the user should know.

    Attributes:
      kind: "fault" (something is wrong) or "remark".
      text: a sentence.
    """

    kind: str
    text: str


def fits(programs: Sequence[Mapping[str, Any]], topology: Topology) -> bool:
    """Whether all programs have room; for GPUs without what cuDNN takes while it works."""
    return all("needed" not in one and one["memory"]["total"] <= topology.chip.usable_bytes for one in programs)


def summary(programs: Sequence[Mapping[str, Any]], config: Config, topology: Topology, sizes: Sizes) -> dict[str, Any]:
    """Speeds and hours at the bounds, where all programs were compiled.

    Returns:
      JSON values. `step_seconds` and `hours` are lower bounds, `images_per_second…` upper ones; `loader_…` is what each host's loader must
      give so that chips which reach the bound don't wait.
    """
    by_name = {one["name"]: one for one in programs if "needed" not in one}
    plan, found = training_plan(config, sizes.train), dict[str, Any]()
    seconds = 0.0
    if TRAIN in by_name:
        step = by_name[TRAIN]
        rate = step["batch"] / step["bound_seconds"]
        evaluations = plan.total / plan.evaluate_every if plan.evaluate_every else 0
        seconds += plan.total * step["bound_seconds"]
        if EVAL in by_name and sizes.evaluated:
            batches = -(-sizes.evaluated // config.loader.eval_batch_size)
            seconds += evaluations * batches * by_name[EVAL]["bound_seconds"]
        found |= {
            "steps": plan.total,
            "step_seconds": step["bound_seconds"],
            "wall": step["wall"],
            "matrix_units_busy": step["seconds"]["products"] / step["bound_seconds"],
            "images_per_second_per_chip": rate / topology.chips,
            "images_per_second": rate,
            "estimated_step_seconds": step["estimated_seconds"],
        }
        found["loader_images_per_second_per_host"] = rate / topology.hosts
    if FEATURES in by_name:
        once = by_name[FEATURES]
        shown = (sizes.train + (sizes.evaluated or 0)) * (1 + config.probe.views)
        rate = once["batch"] / once["bound_seconds"]
        seconds += shown / rate
        found["features_images_per_second_per_chip"] = rate / topology.chips
        found.setdefault("loader_images_per_second_per_host", rate / topology.hosts)
    if EVAL in by_name:
        found["eval_images_per_second_per_chip"] = by_name[EVAL]["batch"] / by_name[EVAL]["bound_seconds"] / topology.chips
    return found | {"hours": seconds / 3600} if seconds else found


def findings(programs: Sequence[Mapping[str, Any]], config: Config, topology: Topology) -> list[Finding]:
    """What is wrong or worth knowing, the gravest first."""
    found: list[Finding] = []
    for one in programs:
        found += _of_memory(one, topology)
        if "needed" not in one:
            found += [*_of_precision(one, config, topology), *_of_donation(one), *_of_links(one, config, topology)]
    found += _of_batch(config, topology)
    return sorted(found, key=lambda finding: finding.kind != "fault")


def findings_of_lowered(programs: Sequence[Mapping[str, Any]], config: Config) -> list[Finding]:
    """What is wrong or worth knowing of programs that are only traced."""
    found = []
    for one in programs:
        if config.model.precision != "f32" and one["convolutions"]["f32"]:
            told = f"{one['name']}: {one['convolutions']['f32']} of {one['convolutions']['count']} convolutions take float32 operands"
            found.append(Finding("fault", f"{told}, where config.model.precision={config.model.precision!r} asks for bfloat16."))
        if one["cpu_forms"]:
            found.append(Finding("fault", f"{one['name']} holds forms of layers that are meant for CPUs ({', '.join(one['cpu_forms'])})."))
        found += _of_donation(one)
        told = f"{one['name']}: {one['convolutions']['count']} convolutions and {one['dots']['count']} matrix products, "
        told += f"{one['convolutions']['f32'] + one['dots']['f32']} of them of float32 operands; "
        found.append(Finding("remark", f"{told}{size(one['argument_bytes'])} of arguments on a chip, unless they are split."))
    return sorted(found, key=lambda finding: finding.kind != "fault")


def _of_memory(one: Mapping[str, Any], topology: Topology) -> list[Finding]:
    room, needed = topology.chip.usable_bytes, one.get("needed") or one["memory"]["total"]
    if needed > room or "needed" in one:
        return [Finding("fault", f"{one['name']} does not fit: it needs {size(needed)} of the {size(room)} that a program may have.")]
    if needed > 0.9 * room:
        return [Finding("remark", f"{one['name']} leaves only {size(room - needed)} of {size(room)} free.")]
    return []


def _of_precision(one: Mapping[str, Any], config: Config, topology: Topology) -> list[Finding]:
    found, convolutions, dots = [], one["convolutions"], one["dots"]
    if config.model.precision != "f32" and convolutions["f32"]:
        where = ", ".join(convolutions["f32_names"][:2])
        told = f"{one['name']}: {convolutions['f32']} of {convolutions['count']} convolutions take float32 operands ({where}), "
        found.append(Finding("fault", f"{told}where config.model.precision={config.model.precision!r} asks for bfloat16."))
    if dots["f32_one_pass"] and topology.chip.kind == "tpu":
        told = f"{one['name']}: {formatting.count(dots['f32_one_pass'], 'matrix product')} of float32 operands "
        found.append(Finding("remark", f"{told}round them to bfloat16, as a TPU does unless the product asks for more."))
    if one["cpu_forms"]:
        listed = ", ".join(one["cpu_forms"])
        found.append(Finding("fault", f"{one['name']} holds forms of layers that are meant for CPUs ({listed})."))
    return found


def _of_donation(one: Mapping[str, Any]) -> list[Finding]:
    if one["donated"] >= one["donatable"]:
        return []
    told = f"{one['name']}: only {one['donated']} of the state's {one['donatable']} arrays give their memory to the next state"
    return [Finding("fault", f"{told}; the others lie in memory twice.")]


def _of_links(one: Mapping[str, Any], config: Config, topology: Topology) -> list[Finding]:
    found, sent = [], one["collectives"]
    if sent["small"] > 20:
        told = (
            f"{one['name']}: {sent['small']} of {sent['count']} messages among the chips are below 64 KiB. Each takes as long as it "
            "travels, which these bounds leave out."
        )
        if not config.model.batch_norm_group:
            told += " Batch normalisation over all chips makes such: with config.model.batch_norm_group=32 a chip needs no other for it."
        found.append(Finding("remark", told))
    if sent["bf16_bytes"] > _MIB:
        told = f"{one['name']}: {size(sent['bf16_bytes'])} are summed over the chips in bfloat16; "
        found.append(Finding("remark", f"{told}config.model.gradient_precision='f32' sums gradients in float32, at twice the bytes."))
    if sent["crossing_slices_bytes"]:
        found.append(Finding("remark", f"{one['name']}: {size(sent['crossing_slices_bytes'])} cross slices, by the data centre's network."))
    elif topology.chip.kind == "gpu" and sent["crossing_hosts_bytes"]:
        found.append(Finding("remark", f"{one['name']}: {size(sent['crossing_hosts_bytes'])} cross hosts, by the network."))
    return found


def _of_batch(config: Config, topology: Topology) -> list[Finding]:
    each = config.loader.batch_size / topology.chips
    if each >= _SMALL_BATCH or config.train.method == "probe":
        return []
    why = (
        "tiles are laid along the batch, 16 rows of bfloat16, and are filled up with nothing"
        if topology.chip.kind == "tpu"
        else "kernels are too short to fill a chip"
    )
    least = _SMALL_BATCH * topology.chips
    told = f"{each:g} images a chip are few: {why}. Fewer chips, or config.loader.batch_size={least} and more, would use them better."
    return [Finding("fault" if each < _SMALL_BATCH / 2 else "remark", told)]


def suggestions(programs: Sequence[Mapping[str, Any]], config: Config, topology: Topology) -> list[dict[str, Any]]:
    """What would make a training fit that does not: fields and values, each an estimate until it is compiled.

    Returns:
      `fields` (name → value) and `text`, a sentence; most likely to help first.
    """
    train = next((one for one in programs if one["name"] == TRAIN), None)
    if train is None or fits([train], topology):
        return []
    room, each = topology.chip.usable_bytes, config.loader.batch_size // topology.chips
    needed = train.get("needed") or train["memory"]["total"]
    fixed = train["memory"]["arguments"] + train["memory"]["code"] if "memory" in train else train["argument_bytes"]
    found: list[dict[str, Any]] = []
    smaller = each
    while smaller > 1 and fixed + (needed - fixed) * smaller / each > 0.95 * room:
        smaller //= 2
    if fixed < 0.9 * room and 1 <= smaller < each:
        batch = smaller * topology.chips
        text = f"config.loader.batch_size={batch}, {smaller:,} images a chip: what is kept for the backward pass shrinks with the batch."
        found.append({"fields": {"loader.batch_size": batch}, "text": text})
    if config.model.precision == "f32":
        text = "config.model.precision='bf16': maps take half the memory."
        found.append({"fields": {"model.precision": "bf16"}, "text": text})
    if not config.train.remat and fixed < 0.9 * room:
        text = f"config.train.remat={_REMAT!r}: maps are computed again in the backward pass instead of kept, for up to a third more work."
        found.append({"fields": {"train.remat": _REMAT}, "text": text})
    if topology.chips > 1 and config.mesh.fsdp == 1 and fixed > 0.2 * room:
        ways = topology.chips_per_host
        text = f"config.mesh.fsdp={ways}: parameters and the optimizer's state are split among {ways} chips."
        found.append({"fields": {"mesh.fsdp": ways}, "text": text})
    return found


def size(count: float) -> str:
    """Bytes for people: `53 MiB`, `4.47 GiB`."""
    if count < _GIB:
        return f"{formatting.number(float(count) / _MIB)} MiB"
    return f"{count / _GIB:,.2f} GiB"
