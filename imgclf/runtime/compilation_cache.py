"""XLA's persistent compilation cache, on by default: a second start of the same experiment compiles nothing."""

import os

import jax

from imgclf.files import cache_dir
from imgclf.runtime import compilation_memory


def enable() -> None:
    """Keeps compiled programs in the cache folder, unless the user has set `jax_compilation_cache_dir`.

    Also gives back to the system the memory that compiling takes, see `compilation_memory`.
    """
    compilation_memory.return_around_compilation()
    if jax.config.values["jax_compilation_cache_dir"] is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # dozens of small programs cost seconds together
