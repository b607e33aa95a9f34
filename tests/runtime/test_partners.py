"""A process that ends because another one has ended does so with that one's exit code, even where JAX aborts it meanwhile."""

import subprocess
import sys

import jax
import pytest

from imgclf.runtime import partners

PROGRAM = """
import os
from imgclf.runtime import partners
from imgclf.runtime.hosts import Hosts

class Client:
    def key_value_dir_get(self, name):
        return [("first", "0\\n2\\na mistake")]

    def key_value_set(self, name, value):  # process 0 reads it and leaves, and the connection to its service breaks before this returns
        os.abort()

partners._tell_abort()
if {told}:
    partners._Watch(Hosts(1, 2, Client()))._look()
os.abort()
"""


@pytest.mark.parametrize(("told", "code"), [(True, 2), (False, 75)])
def test_an_abort_while_a_process_ends_does_not_change_its_exit_code(root, told, code):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(told=told)], cwd=root, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("another process of the training is gone" in done.stderr) == (not told)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: [pair.cc:538] Read error [127.0.0.1]:11693: Connection reset by peer"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: it broke"), True),
        (ValueError("The batch is empty."), False),
        (RuntimeError("UNKNOWN: somebody else's"), False),
    ],
)
def test_a_computation_that_a_lost_partner_has_broken_is_recognised(error, is_one):
    assert partners._is_computations(error) is is_one
