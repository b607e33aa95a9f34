"""Reads files of weights: safetensors, and HDF5 as Keras writes it. Pickles are never opened."""

import functools
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from imgclf.errors import UserError

_PICKLES = (".pth", ".pt", ".th", ".pkl", ".pickle", ".ckpt", ".bin", ".tar")


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file by name; Keras's are named `layer/variable`.

    Raises:
      UserError: if the file is missing, damaged, a pickle, or of an unknown format.
    """
    return _read(path, shapes_only=False)


def shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a file's tensors by name, without reading those; raises as `read` does."""
    return _shapes(path, state(path))


def state(path: Path) -> tuple[int, int]:
    """A file's size and time of its last change, by which what was read of it is known to hold still; (0, 0) where it can't be read."""
    try:
        now = path.stat()
    except OSError:
        return 0, 0  # whoever reads it says why
    return now.st_size, now.st_mtime_ns


@functools.lru_cache(maxsize=16)
def _shapes(path: Path, unchanged: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
    """Read once as long as the file stays what it is: a run asks for them a dozen times, and HDF5 takes 0.1 s each time."""
    del unchanged
    return types.MappingProxyType(_read(path, shapes_only=True))


def _read(path: Path, *, shapes_only: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"The weights {path} can't be read ({error.strerror}); give the path of a .safetensors or .h5 file.") from None
    if path.suffix in _PICKLES:
        raise UserError(_no_pickle(path))
    if start[:8] == b"\x89HDF\r\n\x1a\n" or path.suffix in (".h5", ".hdf5"):
        return _read_hdf5(path, shapes_only)
    # Tested before pickles, as a safetensors file begins with a length, which may have any bytes.
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path, shapes_only)
    if start[:1] == b"\x80" or (start[:2] == b"PK" and path.suffix != ".keras"):
        raise UserError(_no_pickle(path))
    way_out = "in Keras, call model.save_weights('NAME.weights.h5')" if path.suffix == ".keras" else "convert it to safetensors"
    raise UserError(f"{path} is neither safetensors nor HDF5; {way_out}.")


def _no_pickle(path: Path) -> str:
    target = path.with_suffix(".safetensors")
    code = (
        "import torch, safetensors.torch as s; "
        f"d = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
        "d = d.get('state_dict', d); "
        f"s.save_file({{k.removeprefix('module.'): v.clone() for k, v in d.items()}}, {str(target)!r})"
    )
    return (
        f"{path} is a pickle, which could run any code when loaded, so that imgclf never does. "
        f'Where torch is installed, turn it into safetensors: python -c "{code}"'
    )


def _read_safetensors(path: Path, shapes_only: bool) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            if shapes_only:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, cut short or no safetensors file ({error}); fetch it again.") from None


def _read_hdf5(path: Path, shapes_only: bool) -> dict[str, Any]:
    import h5py  # not at the top: most files of weights are safetensors

    try:
        with h5py.File(path) as file:
            group = file.get("model_weights", file)  # of a whole saved model
            depthwise = _depthwise_layers(json.loads(_text(file.attrs.get("model_config", "null"))))
            tensors = _legacy(group, depthwise) if "layer_names" in group.attrs else _weights_h5(path, group)
            names = _numbered_from_zero(tensors)
            return {names[name]: dataset.shape if shapes_only else np.asarray(dataset) for name, dataset in tensors.items()}
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # what h5py raises for damaged files
        raise UserError(f"{path} is damaged, cut short or not of Keras's making ({error}); fetch it again.") from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _depthwise_layers(node: Any) -> set[str]:
    """Names of the depthwise layers in a saved model's description: Keras 3 calls their kernels `kernel`, Keras 2 `depthwise_kernel`."""
    if isinstance(node, list):
        return set().union(*map(_depthwise_layers, node))
    if not isinstance(node, dict):
        return set()
    own = {node["config"]["name"]} if node.get("class_name") == "DepthwiseConv2D" else set()
    return own.union(*map(_depthwise_layers, node.values()))


def _legacy(group: Any, depthwise: set[str]) -> dict[str, Any]:
    """The layout of Keras 2: a group per layer, whose attribute `weight_names` lists `layer/variable:0`, also for nested models."""
    tensors = {}
    for layer in map(_text, group.attrs["layer_names"]):
        for weight in map(_text, group[layer].attrs["weight_names"]):
            *scopes, variable = weight.split("/")
            # a scope that is the layer's own name may hold a slash: DenseNet's conv1/conv, conv1/bn
            owner = layer if not scopes or "/".join(scopes) == layer else scopes[-1]
            variable = variable.removesuffix(":0")
            if variable == "kernel" and owner in depthwise:
                variable = "depthwise_kernel"
            tensors[f"{owner}/{variable}"] = group[layer][weight]
    return tensors


_AUTOMATIC = re.compile(r"(conv2d|separable_conv2d|depthwise_conv2d|batch_normalization|dense)(?:_(\d+))?/.*")


def _numbered_from_zero(names: Iterable[str]) -> dict[str, str]:
    """Renumbers the layers that Keras has named itself, as in the first model of a process: `conv2d`, `conv2d_1`, …

    Keras counts on from model to model, and counted from 1 when the files of InceptionV3 and Xception were published. Layers are
    numbered in the order in which they were made.
    """
    found = {name: match for name in names if (match := _AUTOMATIC.fullmatch(name))}
    numbers: dict[str, set[int]] = {}
    for match in found.values():
        numbers.setdefault(match[1], set()).add(int(match[2] or 0))
    ranks = {(kind, number): i for kind, all_ in numbers.items() for i, number in enumerate(sorted(all_))}

    def renamed(name: str) -> str:
        if name not in found:
            return name
        kind, rank = found[name][1], ranks[found[name][1], int(found[name][2] or 0)]
        return f"{kind}_{rank}/{name.split('/', 1)[1]}" if rank else f"{kind}/{name.split('/', 1)[1]}"

    return {name: renamed(name) for name in names}


# The names of a layer's variables, which .weights.h5 only numbers; by the layer's class and its number of variables.
_VARIABLES: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("batch_normalization", 4): ("gamma", "beta", "moving_mean", "moving_variance"),
    ("batch_normalization", 3): ("beta", "moving_mean", "moving_variance"),  # scale=False: InceptionV3
    ("layer_normalization", 2): ("gamma", "beta"),
    ("layer_scale", 1): ("gamma",),
    ("depthwise_conv2d", 1): ("depthwise_kernel",),
    ("depthwise_conv2d", 2): ("depthwise_kernel", "bias"),
    ("separable_conv2d", 2): ("depthwise_kernel", "pointwise_kernel"),
    ("separable_conv2d", 3): ("depthwise_kernel", "pointwise_kernel", "bias"),
    ("normalization", 3): ("mean", "variance", "count"),
}
_DEFAULT_VARIABLES = ("kernel", "bias")


def _weights_h5(path: Path, group: Any) -> dict[str, Any]:
    """The layout of Keras 3: `layers/<class>_<n>/vars/<i>`; the layer's name is an attribute of `vars`."""
    import h5py

    tensors: dict[str, Any] = {}

    def visit(key: str, node: Any) -> None:
        if not isinstance(node, h5py.Group) or key.rsplit("/", 1)[-1] != "vars" or not len(node):
            return
        if key.startswith("optimizer") or "seed_generator" in key:
            return
        if "name" not in node.attrs:
            raise UserError(f"{path} does not hold the layers' names; load and save it again with Keras 3.6 or later.")
        variables = _VARIABLES.get((_class_of(key), len(node)), _DEFAULT_VARIABLES)
        if len(variables) < len(node):
            raise UserError(f"{path} holds a layer {key} of {len(node)} variables, which imgclf does not know; save it as legacy .h5.")
        for i, variable in enumerate(variables[: len(node)]):
            tensors[f"{_text(node.attrs['name'])}/{variable}"] = node[str(i)]

    group.visititems(visit)
    if not tensors:
        raise UserError(f"{path} holds no Keras weights; save them with model.save_weights('NAME.weights.h5').")
    return tensors


def _class_of(key: str) -> str:
    """`layers/depthwise_conv2d_12/vars` to `depthwise_conv2d`."""
    name = key.split("/")[-2]
    head, _, number = name.rpartition("_")
    return head if number.isdigit() else name
