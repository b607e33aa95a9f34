"""Compiled programs are kept in the cache folder; in processes of their own, as JAX reads the setting once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import jax
from imgclf.runtime import compilation_cache
compilation_cache.enable()
jax.jit(lambda x: x * 2)(1.0)
"""


@pytest.mark.parametrize("own", [False, True])
def test_programs_are_kept_where_they_should_be(own, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment["IMGCLF_CACHE"] = str(tmp_path / "imgclf")
    if own:
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    kept = tmp_path / ("mine" if own else "imgclf/xla")
    assert list(kept.iterdir())
    assert [path.name for path in Path(tmp_path).iterdir()] == [kept.relative_to(tmp_path).parts[0]]
