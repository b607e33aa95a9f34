"""Compiled programs kept whole in the cache, so that a process which shows one picture to a network need not even trace it.

JAX's own cache (`compilation_cache`) saves the compiling alone: a program has to be traced and lowered before it can be looked for there,
which takes half a second for a MobileNetV2. Here a key says beforehand which program it is. An executable is code of one machine: the key
has the kind of CPU with its features, the versions of JAX, XLA and Flax, their settings, and a fingerprint of imgclf's own sources.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from imgclf import files
from imgclf.runtime import processor

FOLDER = "programs"
_HASH = 32  # bytes of the SHA-256 at the head of a file
_lock = threading.Lock()


Function = Callable[..., dict[str, jax.Array]]  # of positional arguments, under `jax.jit` or not


class Programs:
    """The programs of one function, one for each set of shapes that it was called with, on a machine with one CPU device."""

    def __init__(self, key: str):
        """Args: key: all that the function depends on beside its arguments, as text; the machine and the software are added."""
        settings = {name: str(value) for name, value in jax.config.values.items() if "cache" not in name}
        self._folder = files.cached(FOLDER, f"{key}\n{json.dumps(settings)}\n{os.environ.get('XLA_FLAGS', '')}\n{_machine()}")
        self._ready: dict[tuple[object, ...], Callable[..., Any]] = {}

    def are_there(self) -> bool:
        """Whether any program of the function has been kept."""
        return any(self._folder.glob("*.program"))

    def program(self, function: Callable[[], Function], *arguments: object) -> Callable[..., Any]:
        """The program for arguments like these.

        Args:
          function: returns the function; called where the program is not there yet.
          arguments: positional; what counts is their structure, shapes and types.
        """
        leaves, structure = jax.tree.flatten(arguments)
        like = (structure, *((leaf.shape, leaf.dtype) for leaf in leaves))  # its text is made once: this is asked for each batch
        if like not in self._ready:
            with _lock:
                if like not in self._ready:
                    place = self._folder / f"{hashlib.sha256(str(like).encode()).hexdigest()[:24]}.program"
                    self._ready[like] = _read(place, arguments) or _made(function(), arguments, place)
        return self._ready[like]


def are_kept() -> bool:
    """Whether this process's devices are such that programs are kept: one CPU device. On others, compiling takes longer than tracing."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def _read(place: Path, arguments: tuple[object, ...]) -> Callable[..., Any] | None:
    """A program that was kept; None where there is none, or it is damaged or of a JAX that this one doesn't understand."""
    try:
        data = place.read_bytes()
        of_another_user = hasattr(os, "getuid") and place.stat().st_uid != os.getuid()
    except OSError:
        return None
    if of_another_user or hashlib.sha256(data[_HASH:]).digest() != data[:_HASH]:
        return None
    names, _, executable = data[_HASH:].partition(b"\n")
    into, out_of = jax.tree.structure((arguments, {})), jax.tree.structure(dict.fromkeys(json.loads(names), 0))
    try:
        return serialize_executable.deserialize_and_load(executable, into, out_of)  # code that this user's own process has written
    except jax.errors.JaxRuntimeError:
        return None


def _made(function: Function, arguments: tuple[object, ...], place: Path) -> Callable[..., Any]:
    """Compiles a program, and keeps it."""
    # What JAX has taken from its cache can't be serialized again (jaxlib 0.10: "Function … not found" when it is called). So it is compiled
    # without that cache, and within a function that is new to JAX, as of one that was called before the program is at hand.
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    jax_cache.reset_cache()
    try:
        compiled = jax.jit(lambda *arguments: function(*arguments)).lower(*arguments).compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        jax_cache.reset_cache()
    executable, _, out_of = serialize_executable.serialize(compiled)
    names = sorted(out_of.unflatten(range(out_of.num_leaves)))
    data = json.dumps(names).encode() + b"\n" + executable
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(place, shared=True) as aside:
            aside.write_bytes(hashlib.sha256(data).digest() + data)
    except OSError as error:  # as JAX does for its own cache: a full disk costs the next start some time, not this one
        warnings.warn(f"A compiled program can't be kept in the cache, so that the next start compiles it again: {error}", stacklevel=2)
    return compiled


@functools.cache
def _machine() -> str:
    """What decides, beside a function and its arguments, what its program is."""
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")]
    package = Path(__file__).resolve().parents[1]
    files_now = ((str(path.relative_to(package)), path.stat()) for path in sorted(package.rglob("*.py")))
    sources = [(name, status.st_size, status.st_mtime_ns) for name, status in files_now]
    return json.dumps([versions, processor.describe(), processor.cores(), sources])
