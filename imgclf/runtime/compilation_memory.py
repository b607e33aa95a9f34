"""Gives back to the system what malloc keeps: before a large program is compiled or loaded, what making the model took (70 MiB of a
ResNet-50); after it, what compiling took (half a GiB for its training step)."""

import ctypes
import functools
import math
import sys

import jax

# Recorded before a program is compiled, or loaded from the cache, and after; and the seconds from which on it is a large one.
_LONG = {"/jax/core/compile/jaxpr_to_mlir_module_duration": 0.1, "/jax/core/compile/backend_compile_duration": 0.5}


@functools.cache
def return_around_compilation() -> None:
    """From now on, before and after each long compilation, has glibc return all free memory (malloc_trim(3)); elsewhere does nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def on_duration(event: str, seconds: float, **_: str | int) -> None:
        if seconds > _LONG.get(event, math.inf):
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
