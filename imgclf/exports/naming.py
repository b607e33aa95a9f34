"""What the exports to other libraries' names, timm's and Keras's, have in common: which options tell networks apart, and parameters in the
form that both libraries have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgclf.config import parse_arguments
from imgclf.exports.exportable import Exportable
from imgclf.models import registry
from imgclf.models.weights import conversion
from imgclf.models.weights import files as weight_files
from imgclf.models.weights.conversion import Rule, Tree, Weights

WAY_OUT = "export it with --to=onnx or --to=stablehlo, which take every network."
EPSILON = 1e-5  # of batch normalisation, where a config doesn't say otherwise
_TRAINING = ("momentum", "unbiased")  # options of normalisation that an answer doesn't depend on


def telling(variant: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network that its answer depends on, without those that are as they are by default."""
    return {key: value for key, value in variant.items() if key not in _TRAINING and (key, value) != ("epsilon", EPSILON)}


def own_variant(exportable: Exportable) -> dict[str, Any]:
    """Those of the classifier."""
    return telling(parse_arguments(exportable.config.model.variant, "model.variant"))


def published(exportable: Exportable, library: str) -> list[Weights]:
    """What a library has published of the model, such as "timm"; nothing of a model of the user's own."""
    name = exportable.config.model.name
    return [] if ":" in name else [entry for entry in registry.weights(name).values() if entry.name.startswith(f"{library}/")]


def adapted(exportable: Exportable, epsilon: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters and statistics by path, for libraries whose epsilon is fixed and whose networks have an output for each class.

    Args:
      exportable: the classifier.
      epsilon: by how much that of the library's batch normalisation is less than ours; the variances make up for it.
    """
    copy = jax.tree.map(np.asarray, (exportable.params, exportable.batch_stats))
    params, stats = (dict(conversion.flatten(tree)) for tree in copy)
    if epsilon:
        stats |= {path: value + np.float32(epsilon) for path, value in stats.items() if path.endswith("/var")}
    if params["head/logits/kernel"].shape[1] < len(exportable.class_names):  # one output z stands for the logits [0, z]
        for leaf in ("head/logits/kernel", "head/logits/bias"):
            params[leaf] = np.concatenate([np.zeros_like(params[leaf]), params[leaf]], axis=-1)
    return params, stats


def read_back(path: Path, rules: Sequence[Rule], params: Tree, stats: Tree) -> None:
    """Converts a library's file as any of its making, and compares it with what it was made of, bit by bit."""
    again = conversion.convert(weight_files.read(path), rules, params, stats)
    for ours, theirs in zip((params, stats), again, strict=True):
        theirs = conversion.flatten(theirs)
        for name, value in conversion.flatten(ours).items():
            if not np.array_equal(value, theirs[name]):
                raise AssertionError(f"{name} does not come back from {path.name} as it went there")


def program_of(network: str) -> str:
    """What `process.answers` runs: the export's own file that opens the network, such as "timm_network.py"."""
    return f"""
def load(folder):
    sys.dont_write_bytecode = True  # the folder holds what was written into it, nothing else
    sys.path.insert(0, folder)
    from {network.removesuffix(".py")} import load as load_network
    return load_network(folder)
"""
