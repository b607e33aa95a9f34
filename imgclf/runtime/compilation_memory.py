"""Gives back to the system the memory that malloc keeps although it is free.

Before a large program is compiled or loaded, that is the memory that making the model took (70 MiB for a ResNet-50); after it, the memory
that compiling took (half a GiB for the training step of a ResNet-50).
"""

import ctypes
import functools
import math
import sys

import jax

# JAX records the first event before a program is compiled, or loaded from the cache, and the second one after it. A program is a large one
# if the event has lasted longer than so many seconds.
_LONG = {"/jax/core/compile/jaxpr_to_mlir_module_duration": 0.1, "/jax/core/compile/backend_compile_duration": 0.5}


@functools.cache
def return_around_compilation() -> None:
    """Makes glibc return all free memory (malloc_trim(3)) before and after each long compilation from now on."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if duration_secs > _LONG.get(event, math.inf):
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
