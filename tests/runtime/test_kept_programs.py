"""Programs that are kept whole, so that another process need not trace them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.runtime import kept_programs

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)

# Says what another process finds there, whose function must not be called.
OTHER = """
import jax.numpy as jnp, numpy as np
from imgclf.runtime import kept_programs
kept = kept_programs.Programs("a product")
arguments = {"weights": np.arange(12, dtype=np.float32).reshape(3, 4)}, np.ones((2, 3), np.float32)
print(kept.are_there(), kept.program(lambda: 1 / 0, *arguments)(*arguments)["y"].tolist())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    return tmp_path


def product():
    return jax.jit(lambda params, x: {"y": jnp.dot(x, params["weights"])})


def arguments(rows=2):
    return {"weights": WEIGHTS}, np.ones((rows, 3), np.float32)


def one_file(cache):
    (file,) = cache.rglob("*.program")
    return file


@pytest.mark.parametrize("before", ["nothing", "compiled", "called"])
def test_another_process_runs_it_without_the_function(cache, before):
    function = product()
    if before != "nothing":
        product()(*arguments())  # what comes out of JAX's own cache can't be kept
    if before == "called":
        function(*arguments())  # out of that cache
    kept = kept_programs.Programs("a product")
    assert not kept.are_there()
    answer = kept.program(lambda: function, *arguments())(*arguments())["y"]
    assert np.array_equal(answer, product()(*arguments())["y"])
    done = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {answer.tolist()}\n"


def test_each_shape_and_each_key_has_its_own(cache):
    kept = kept_programs.Programs("a product")
    assert kept.program(product, *arguments(2))(*arguments(2))["y"].shape == (2, 4)
    assert kept.program(product, *arguments(5))(*arguments(5))["y"].shape == (5, 4)
    assert len(list(cache.rglob("*.program"))) == 2
    assert not kept_programs.Programs("another").are_there()


def test_another_processor_has_its_own(cache, monkeypatch):
    kept_programs.Programs("a product").program(product, *arguments())
    kept_programs._machine.cache_clear()
    monkeypatch.setattr(kept_programs.processor, "describe", lambda: {"cpu": "another", "cpu_features": []})
    assert not kept_programs.Programs("a product").are_there()
    kept_programs._machine.cache_clear()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data[:100] + b"x" + data[101:]])
def test_a_damaged_one_is_made_anew(cache, damage):
    kept_programs.Programs("a product").program(product, *arguments())
    whole = one_file(cache).read_bytes()
    one_file(cache).write_bytes(damage(whole))
    answer = kept_programs.Programs("a product").program(product, *arguments())(*arguments())["y"]
    assert np.array_equal(answer, arguments()[1] @ WEIGHTS)
    assert len(one_file(cache).read_bytes()) == len(whole)


def test_where_nothing_can_be_kept_it_is_said_and_answered(cache):
    (cache / "programs").touch()
    with pytest.warns(UserWarning, match=r"can't be kept in the cache, so that the next start compiles it again: .*programs"):
        answer = kept_programs.Programs("a product").program(product, *arguments())(*arguments())["y"]
    assert np.array_equal(answer, arguments()[1] @ WEIGHTS)


def test_jax_keeps_its_own_cache(cache):
    before = jax.config.values["jax_enable_compilation_cache"]
    kept_programs.Programs("a product").program(product, *arguments())
    assert jax.config.values["jax_enable_compilation_cache"] == before
