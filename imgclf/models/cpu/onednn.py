"""Convolutions by oneDNN, the library that PyTorch computes them with on the CPU: an extra, `pip install 'imgclf[onednn]'`.

XLA:CPU has no kernels for convolutions of bfloat16, and its float32 ones, above all the gradients of kernels, reach three quarters of
oneDNN's speed. XLA lets a program call functions of a shared library (https://docs.jax.dev/en/latest/ffi.html). Ours is onednn.cc, which
is compiled once by the C++ compiler of the machine, in some ten seconds, and kept in the cache folder.
"""

import ctypes
import functools
import importlib.metadata
import os
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import files
from imgclf.models.cpu.convolution import Edges, output_size

_TARGET = "imgclf_onednn_convolution"
_SOURCE = Path(__file__).with_suffix(".cc")
_LIBRARY, _HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"  # packages; the newer one, onednn, brings SYCL's runtime of half a gigabyte
_FORWARD, _INPUT_GRADIENT, _KERNEL_GRADIENT = range(3)


@functools.cache
def missing() -> str | None:
    """Why oneDNN can't be used here, as the end of a sentence; None if it can. The first call may compile for some ten seconds."""
    library, header = _installed(_LIBRARY, "libdnnl.so.3"), _installed(_HEADERS, "oneapi/dnnl/dnnl.hpp")
    if library is None or header is None:
        return "it is not installed: python -m pip install 'imgclf[onednn]'"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "there is no C++ compiler (g++) to connect it with"
    versions = [importlib.metadata.version(name) for name in (_LIBRARY, "jaxlib")]
    made = files.cached("onednn", "\n".join([*versions, str(library), compiler, _SOURCE.read_text(encoding="utf-8")]), ".so")
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(made, shared=True) as aside:
            folders = [f"-I{header.parents[2]}", f"-I{jax.ffi.include_dir()}"]
            options = ["-w", "-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", *folders]
            command = [compiler, *options, str(_SOURCE), "-o", str(aside), str(library), f"-Wl,-rpath,{library.parent}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                aside.touch()
        if done.returncode:
            made.unlink()
            return f"{compiler} can't compile {_SOURCE.name}: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    try:
        convolution = ctypes.CDLL(str(made)).ImgclfConvolution
    except OSError as error:
        return f"its library can't be loaded: {error}"
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(convolution), platform="cpu")
    return None


def _installed(package: str, name: str) -> Path | None:
    """The file of an installed package whose path ends so."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(distribution.locate_file(file))).resolve() for file in distribution.files or () if str(file).endswith(name))
    return next(found, None)


def conv2d(x: jax.Array, kernel: jax.Array, stride: int, padding: Edges) -> jax.Array:
    """The convolution, float32, of maps [B,H,W,C], float32 or bfloat16, with a kernel [kh,kw,C,K] in float32, rounded as the maps are."""
    size = output_size(x.shape[1:3], kernel.shape[:2], stride, padding)
    return _call(_FORWARD, x, kernel, (x.shape[0], *size, kernel.shape[3]), stride, padding)


def input_gradient(grad: jax.Array, kernel: jax.Array, size: tuple[int, int], stride: int, padding: Edges) -> jax.Array:
    """The gradient, float32, of maps of this height and width; operands as in `conv2d`."""
    return _call(_INPUT_GRADIENT, grad, kernel, (grad.shape[0], *size, kernel.shape[2]), stride, padding)


def kernel_gradient(x: jax.Array, grad: jax.Array, shape: tuple[int, ...], stride: int, padding: Edges) -> jax.Array:
    """The gradient, float32, of a kernel of this shape; both operands float32, or both bfloat16."""
    return _call(_KERNEL_GRADIENT, x, grad, shape, stride, padding)


def _call(kind: int, first: jax.Array, second: jax.Array, shape: tuple[int, ...], stride: int, padding: Edges) -> jax.Array:
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(shape, jnp.float32))
    edges = np.array([side for edges in padding for side in edges], np.int64)
    result: jax.Array = call(first, second, kind=np.int64(kind), stride=np.int64(stride), padding=edges)
    return result
