"""What one compiled program takes: counted from its text, and put beside the peaks of the chip that it is for."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from imgclf.planning import collectives as collectives_lib
from imgclf.planning import hlo, products, traffic
from imgclf.planning.chips import Chip
from imgclf.planning.topologies import Topology

CPU_FORMS = "/imgclf/models/cpu/"  # the files of the forms that only a CPU should run
WALLS = {"products": "matrix units", "memory": "memory bandwidth", "links": "links between chips"}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler has said of a program, as the child process hands it back.

    Attributes:
      name: "train", "eval" or "features".
      text: the scheduled program.
      batch: images of the global batch.
      memory: bytes on one chip: `arguments`, `outputs`, `aliased` (of the outputs, what lies in the arguments' memory), `temporaries`,
        `code`, `peak` (0 where the compiler doesn't say).
      donatable: how many arrays the training state has, which ought to give their memory to the next one; 0 for other programs.
      hosts, slices: of each place of the mesh, the number of its host and of its slice.
      seconds: that compiling took.
    """

    name: str
    text: str
    batch: int
    memory: Mapping[str, int]
    donatable: int
    hosts: Sequence[int]
    slices: Sequence[int]
    seconds: float


def count(compiled: Compiled, topology: Topology) -> dict[str, Any]:
    """Counts a program, and bounds its time.

    Args:
      compiled: the program.
      topology: which it is for.

    Returns:
      JSON values; `bound_seconds` is a lower bound of a call's time: the longest of the three `seconds`, as if each ran wholly beside the
      others. `estimated_seconds` is the compiler's, without what chips send each other; None where it makes none.
    """
    chip, module = topology.chip, hlo.parse(compiled.text)
    runs, parts = traffic.scheduled(module), traffic.all_parts(module)
    found = products.products(module, parts)
    domains = compiled.slices if chip.kind == "tpu" else compiled.hosts
    sent = collectives_lib.collectives(module, parts)
    moved = traffic.memory_bytes(module, runs)
    seconds = {
        "products": sum(times * product_seconds(product, chip) for product, times in found),
        "memory": moved / chip.memory_rate,
        "links": sum(collectives_lib.least_seconds(one, chip, domains) for one in sent),
    }
    cycles = traffic.estimated_cycles(module, runs) if chip.clock else 0
    memory = dict(compiled.memory)
    memory["total"] = memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"] + memory["code"]
    return {
        "name": compiled.name,
        "batch": compiled.batch,
        "memory": memory,
        "flops": {
            dtype: sum(times * product.flops for product, times in found if (product.dtype == "bf16") == (dtype == "bf16"))
            for dtype in ("bf16", "f32")
        },
        "memory_bytes": moved,
        "collectives": _summary(sent, compiled.hosts, compiled.slices),
        "convolutions": _of_kind(found, "convolution"),
        "dots": _of_kind(found, "dot"),
        "donated": module.donated,
        "donatable": compiled.donatable,
        "cpu_forms": sorted({file.partition(CPU_FORMS)[2] for file in module.files if CPU_FORMS in file}),
        "seconds": seconds,
        "bound_seconds": max(seconds.values()),
        "wall": max(seconds, key=lambda wall: seconds[wall]),
        "estimated_seconds": cycles / chip.clock if cycles else None,
        "compile_seconds": compiled.seconds,
    }


def product_seconds(product: products.Product, chip: Chip) -> float:
    """A lower bound of a product's time, at the peak for its operands."""
    if product.dtype == "bf16":
        return product.flops / chip.bf16_flops
    if chip.kind == "tpu":
        return product.flops * product.passes / chip.bf16_flops
    return product.flops / chip.f32_flops


def _of_kind(found: list[tuple[products.Product, int]], kind: str) -> dict[str, Any]:
    """How many products of a kind there are, and the places of those whose operands are float32."""
    own = [product for product, _ in found if product.kind == kind]
    exact = [product for product in own if product.dtype not in ("bf16", "f16")]
    return {
        "count": len(own),
        "f32": len(exact),
        "f32_flops": sum(product.flops for product in exact),
        "f32_one_pass": sum(product.passes == 1 for product in exact),
        "f32_names": sorted({product.name for product in exact})[:5],
    }


def _summary(sent: list[collectives_lib.Collective], hosts: Sequence[int], slices: Sequence[int]) -> dict[str, Any]:
    def total(some: list[collectives_lib.Collective]) -> int:
        return sum(one.times * one.bytes for one in some)

    kinds = sorted({one.kind for one in sent})
    return {
        "count": sum(one.times for one in sent),
        "bytes": total(sent),
        "by_kind": {
            kind: {"count": sum(one.times for one in sent if one.kind == kind), "bytes": total([one for one in sent if one.kind == kind])}
            for kind in kinds
        },
        "small": sum(one.times for one in sent if one.bytes < collectives_lib.SMALL),
        "bf16_bytes": total([one for one in sent if "bf16" in one.dtypes]),
        "crossing_hosts_bytes": total([one for one in sent if collectives_lib.crossing(one.groups, hosts)]),
        "crossing_slices_bytes": total([one for one in sent if collectives_lib.crossing(one.groups, slices)]),
    }
