"""XLA's CPU flags: set by importing imgclf, never against the user's choice; and the wrong results that they prevent."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

from imgclf.runtime import platform_flags

FLAG = "--xla_cpu_experimental_ynn_fusion_type"

# jax-ml/jax#39103: in jaxlib 0.10.2, a dot with a captured 3x3 constant and a sum, fused by YNNPACK, is wrong in many rows.
WRONG_ROWS = """
import json, sys
if "imgclf" in sys.argv:
    import imgclf
import jax, jax.numpy as jnp, jaxlib, numpy as np

rng = np.random.default_rng(0)
matrix, rows = rng.normal(size=(3, 3)).astype(np.float32), rng.normal(size=(40_001, 3)).astype(np.float32)
lengths = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(rows)
exact = np.sum((rows.astype(np.float64) @ matrix.T.astype(np.float64)) ** 2, axis=1)
print(json.dumps({"jaxlib": jaxlib.__version__, "wrong": int(np.sum(np.abs(lengths - exact) > 1e-3 * (1 + exact)))}))
"""

FLAGS = "import imgclf, os, sys; print('jax' in sys.modules); print(os.environ.get('XLA_FLAGS', ''))"


def run(code: str, root, *arguments: str, flags: str | None = None) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)} | ({} if flags is None else {"XLA_FLAGS": flags})
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


tried = pytest.mark.skipif(
    importlib.metadata.version("jaxlib") not in ("0.10.2", "0.12.0.1"), reason="the flag was not tried on this jaxlib"
)


@tried
def test_importing_imgclf_sets_the_flag_and_does_not_import_jax(root):
    assert run(FLAGS, root).stdout.splitlines() == ["False", f"{FLAG}=individual_dot"]


@tried
def test_other_flags_of_the_user_are_kept(root):
    assert run(FLAGS, root, flags="--xla_dump_to=").stdout.splitlines()[1] == f"--xla_dump_to= {FLAG}=individual_dot"


def test_the_users_choice_stands(root):
    assert run(FLAGS, root, flags=f"{FLAG}=-reduce").stdout.splitlines()[1] == f"{FLAG}=-reduce"


@tried
def test_a_flag_that_comes_too_late_is_warned_of(root):
    assert "Import imgclf first" in run("import jax; jax.devices(); import imgclf", root).stderr
    assert "Import imgclf first" not in run("import jax; import imgclf; jax.devices()", root).stderr


def test_no_row_is_wrong_with_imgclfs_flags(root):
    """And without them jaxlib 0.10.2 is wrong, which shows that the pattern is the one that is tested."""
    assert json.loads(run(WRONG_ROWS, root, "imgclf").stdout)["wrong"] == 0
    plain = json.loads(run(WRONG_ROWS, root).stdout)
    if plain["jaxlib"] == "0.10.2" and sys.platform == "linux" and os.uname().machine == "x86_64":
        assert plain["wrong"] > 0


RESTART = """
import os
before = os.environ.get("GLIBC_TUNABLES", "")
from imgclf.runtime import platform_flags
platform_flags.restart_with_huge_pages()
print(before, os.getpid(), os.environ["MARK"])
"""


@pytest.mark.skipif(
    not platform_flags._HUGE_PAGES.exists() or "[madvise]" not in platform_flags._HUGE_PAGES.read_text(),
    reason="this system gives huge pages always, or never",
)
@pytest.mark.parametrize(
    ("tunables", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_program_starts_anew_in_the_same_process_for_huge_pages(root, tunables, expected):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": str(root), "MARK": "kept"} | ({} if tunables is None else {"GLIBC_TUNABLES": tunables})
    with subprocess.Popen([sys.executable, "-c", RESTART], env=environment, stdout=subprocess.PIPE, text=True) as process:
        printed = process.communicate()[0]
    assert printed == f"{expected} {process.pid} kept\n"
