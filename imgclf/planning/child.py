"""The process that compiles: `python -m imgclf.planning.child REQUEST.json`, started by `compiling`.

It is a process of its own because a compiler for TPUs may end the process that it runs in (libtpu does for a slice that there is not), and
because JAX is to find neither TPU nor GPU: nothing runs, nothing is allocated. It writes what it finds into the request's folder, and tells
of each step in a line of JSON.
"""

import dataclasses
import gzip
import hashlib
import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

from imgclf import files

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # it can't keep programs for devices that aren't there
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks a server of Google's cloud what machine this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be compiled.

    Attributes:
      config: the whole config, resolved, as JSON.
      topology: its name.
      compiles: False = no compiler for it is installed, and the programs are only lowered.
      programs: their names.
      num_classes, train_images: of the data.
      folder: where the results go, and where texts that were compiled before lie.
      versions: of JAX and of the compiler, part of what a compiled text is known by.
    """

    config: str
    topology: str
    compiles: bool
    programs: tuple[str, ...]
    num_classes: int
    train_images: int
    folder: str
    versions: str


def main(path: str) -> None:
    """Answers a request; a mistake of the user's is answered by `{"error": …}`."""
    from imgclf.config import from_json
    from imgclf.errors import UserError
    from imgclf.planning import programs, topologies
    from imgclf.training import sharding

    given = json.loads(Path(path).read_text(encoding="utf-8"))
    request = Request(**given | {"programs": tuple(given["programs"])})
    config, topology = from_json(request.config), topologies.parse(request.topology)
    try:
        if not request.compiles:
            _lower(request, config, topology)
            return
        mesh = sharding.create_mesh(_devices(topology), config.mesh)
        for name in request.programs:
            _tell(program=name, state="tracing")
            program = programs.create(name, config, request.num_classes, request.train_images, mesh)
            _tell(program=name, state="compiling")
            _tell(program=name, state="compiled", result=_compiled(program, mesh, request))
    except UserError as error:
        _tell(error=str(error))


def _lower(request: Request, config: Any, topology: Any) -> None:
    """Tells what the programs say of themselves: each for one chip with its share of a batch, as no compiler describes the others."""
    import jax

    from imgclf.models import forms
    from imgclf.planning import lowered, programs
    from imgclf.training import sharding

    config.loader.batch_size //= topology.chips
    config.loader.eval_batch_size //= topology.chips
    config.mesh.fsdp = config.mesh.model = 1
    mesh = sharding.create_mesh(jax.devices()[:1], config.mesh)
    with forms.meshes_stand_for(forms.Target(topology.chip.kind, topology.chips)):
        for name in request.programs:
            _tell(program=name, state="tracing")
            program = programs.create(name, config, request.num_classes, request.train_images, mesh)
            traced = program.traced().lower(lowering_platforms=("cuda" if topology.chip.kind == "gpu" else "tpu",))
            about = {"name": name, "batch": program.batch * topology.chips, "donatable": program.donatable}
            about["argument_bytes"] = _argument_bytes(program)
            _tell(program=name, state="traced", result=about | lowered.count(traced.as_text(), traced.as_text(debug_info=True)))


def _devices(topology: Any) -> list[Any]:
    """The described devices of a topology."""
    from jax.experimental import topologies

    if topology.chip.kind == "gpu":
        layout = f"1x{topology.hosts}x{topology.chips_per_host}"  # partitions x hosts x devices
        return topologies.get_topology_desc("gpu", "cuda", target_config=topology.chip.target, topology=layout).devices
    name = f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}"
    options: dict[str, Any] = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices


def _compiled(program: Any, mesh: Any, request: Request) -> str:
    """Compiles a program, or finds what was compiled of the same before; returns the name of its file."""
    lowered = program.traced().lower()
    code = lowered.as_text()
    key = hashlib.sha256("\0".join((code, request.topology, request.versions)).encode()).hexdigest()[:24]
    target = Path(request.folder) / f"{key}.json"
    if target.exists():
        return target.name
    start, about = time.monotonic(), {"name": program.name, "batch": program.batch, "donatable": program.donatable}
    about |= {
        "hosts": [device.process_index for device in mesh.devices.flat],
        "slices": [getattr(device, "slice_index", 0) for device in mesh.devices.flat],
    }
    try:
        compiled = lowered.compile()
    except Exception as error:  # XLA's own kinds of errors have no public names
        if "RESOURCE_EXHAUSTED" not in str(error) or not (needed := _needed(str(error))):
            raise
        about |= {"needed": needed, "argument_bytes": _argument_bytes(program), "seconds": time.monotonic() - start}
    else:
        memory = compiled.memory_analysis()
        about["memory"] = {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "peak": getattr(memory, "peak_memory_in_bytes", 0),
        }
        about["seconds"] = time.monotonic() - start
        with gzip.open(target.with_suffix(".hlo.gz"), "wt", encoding="utf-8", compresslevel=5) as file:
            file.write(compiled.as_text())
    with files.replacing(target, shared=True) as aside:
        aside.write_text(json.dumps(about), encoding="utf-8")
    return target.name


def _argument_bytes(program: Any) -> int:
    """What the arguments take on one chip, without padding."""
    import jax

    leaves = jax.tree.leaves(program.arguments)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _needed(message: str) -> int:
    """How many bytes of memory a program needs that was refused for it; 0 where the message doesn't say."""
    for pattern in (
        r"Used ([\d.]+)([KMGT]) of",
        r"required for HLO temporaries \(([\d.]+)([KMGT])\)",
        r"total memory required[^(]*\(([\d.]+)([KMGT])\)",
    ):
        if match := re.search(pattern, message):
            return round(float(match[1]) * _UNITS[match[2]])
    return 0


def _tell(**event: Any) -> None:
    print("\x1e" + json.dumps(event), flush=True)  # marked, as compilers write to the same stream


if __name__ == "__main__":
    main(sys.argv[1])
