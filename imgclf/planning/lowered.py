"""What a program says of itself before any compiler has seen it, as StableHLO: dtypes, donation, forms, arguments. It takes seconds."""

import re
from typing import Any

_PRODUCT = re.compile(r"stablehlo\.(convolution|dot_general)\b.*: \(tensor<(?:[\dx?]+x)?(\w+)>, tensor<(?:[\dx?]+x)?(\w+)>\)")
_CPU_FORM = re.compile(r'"[^"]*/imgclf/models/cpu/([\w.]+)"')
_DONATED = re.compile(r"tf\.aliasing_output|jax\.buffer_donor")


def count(text: str, located: str) -> dict[str, Any]:
    """Counts a lowered program.

    Args:
      text: the program, as JAX prints it.
      located: the same with the places in the source (`debug_info=True`).

    Returns:
      `convolutions`, `dots` ({"count", "f32"}: of those the ones whose operands are float32), `donated`, `cpu_forms` (files).
    """
    found: dict[str, dict[str, int]] = {"convolution": {"count": 0, "f32": 0}, "dot_general": {"count": 0, "f32": 0}}
    for kind, left, right in _PRODUCT.findall(text):
        found[kind]["count"] += 1
        found[kind]["f32"] += left == right == "f32"
    return {
        "convolutions": found["convolution"],
        "dots": found["dot_general"],
        "donated": len(_DONATED.findall(text)),
        "cpu_forms": sorted(set(_CPU_FORM.findall(located))),
    }
