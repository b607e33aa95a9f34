"""Settings that must be made before JAX starts: XLA's flags for the CPU, and malloc's huge pages. Nothing here imports JAX."""

import importlib.metadata
import os
import re
import sys
import warnings
from pathlib import Path

YNN_FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"

# The jaxlib versions on which the flag was tried. XLA ends the process at a flag that it doesn't know, so others do without.
_TRIED_JAXLIB = re.compile(r"0\.10\.2|0\.12\.0(\.\d+)?")


def set_xla_flags() -> None:
    """Restricts XLA:CPU's YNNPACK fusion to single dots, where the user has not chosen a fusion type.

    The default fusions make convolution gradients several times slower and, in jaxlib 0.10.2, give wrong results
    (https://github.com/jax-ml/jax/issues/39103). Only the environment variable `XLA_FLAGS` is changed, which spawned processes inherit.
    Where JAX's CPU client exists already, the flag would come too late; a warning says so.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN_FUSION_FLAG in flags:
        return
    try:
        version = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return
    if not _TRIED_JAXLIB.fullmatch(version):
        return
    if _backends_initialized():
        warnings.warn(
            f"JAX was started before imgclf was imported: training on the CPU will be slower, and with jaxlib 0.10.2 some results are "
            f"wrong (jax-ml/jax#39103). Import imgclf first, or set XLA_FLAGS=--{YNN_FUSION_FLAG}=individual_dot.",
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} --{YNN_FUSION_FLAG}=individual_dot".strip()


_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HUGE_PAGES_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Starts this program anew, in the same process, with malloc asking for huge pages, where Linux gives them only on request.

    XLA:CPU allocates the feature maps anew in each training step. With small pages that is 90,000 page faults per step of ResNet-18 and
    350,000 of ResNet-50, a sixth to a quarter of the step's time. glibc (2.35 and later) reads the setting once, when a program starts
    (https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html). Programs call this before anything else; what
    the user has chosen in `GLIBC_TUNABLES` stands.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES_TUNABLE in tunables or not _HUGE_PAGES.exists() or "[madvise]" not in _HUGE_PAGES.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, f"{_HUGE_PAGES_TUNABLE}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _backends_initialized() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()
