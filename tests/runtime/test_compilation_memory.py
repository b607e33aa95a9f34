"""Memory that compiling took goes back to the system before the program runs; in a process of its own, for malloc's state is global."""

import subprocess
import sys

import pytest

PROGRAM = """
import jax
from pathlib import Path
from imgclf.runtime import compilation_memory

def resident():
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")))

compilation_memory._LONG["/jax/core/compile/backend_compile_duration"] = 0.0
compilation_memory.return_around_compilation()
jax.jit(lambda x: x + 1)(1.0)  # JAX starts here
blocks = [bytearray(b"x" * 50_000) for _ in range(4_000)]
full = resident()
del blocks[::2]  # in pieces, which malloc keeps
jax.jit(lambda x: x + 2)(1.0)
print((full - resident()) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_free_memory_goes_back_after_a_compilation():
    output = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    assert float(output) > 50  # MiB, of 95 freed
