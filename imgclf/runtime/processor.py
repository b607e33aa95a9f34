"""Which kind of CPU a program runs on: XLA compiles for what it can do, so that results are the same to the bit on one kind only."""

import os
import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# What XLA's code generator and the libraries for matrices choose by; others, such as those for virtual machines, change nothing.
_FEATURES = re.compile(r"sse4|avx|fma|f16c|bmi|amx|asimd|sve|bf16|i8mm|neon")


def describe(cpuinfo: Path = _CPUINFO) -> dict[str, object]:
    """Returns `cpu`, the processor's name, and `cpu_features`, those of its instruction sets that change results, sorted.

    Args:
      cpuinfo: what Linux says of the processors; elsewhere there is no such file, and only the name is known.
    """
    if not cpuinfo.exists():
        return {"cpu": platform.processor() or platform.machine(), "cpu_features": []}
    fields: dict[str, str] = dict(
        re.findall(r"^(\w[\w ]*?)\s*:\s*(.*)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    )
    names = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cpu_features": sorted(name for name in set(names) if _FEATURES.match(name)),
    }


def cores() -> int:
    """How many cores this process may use: a container, or `taskset`, may have taken some of the machine's away."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
