"""A process that ends because another one has ended does so with that one's exit code, even where JAX aborts it meanwhile."""

import subprocess
import sys

import pytest

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
