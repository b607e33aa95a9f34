"""The choices of an export: its format, and options; without JAX, so that a wrong one is told at once."""

import dataclasses

from imgclf.errors import UserError, nearest

# name → the precisions that it can have
FORMATS: dict[str, tuple[str, ...]] = {
    "onnx": ("float32", "float16", "int8"),
    "stablehlo": ("float32",),
    "timm": ("float32",),
    "keras": ("float32",),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a classifier is exported.

    Attributes:
      int8: convolutions in 8-bit integers.
      fp16: weights and activations in 16-bit floats.
      python: the interpreter of the process in which the export is checked, which may be another environment's.
    """

    int8: bool = False
    fp16: bool = False
    python: str = ""

    @property
    def precision(self) -> str:
        """float32, int8 or float16."""
        return "int8" if self.int8 else "float16" if self.fp16 else "float32"


def check(to: str, options: Options) -> None:
    """Raises a UserError for a format that there isn't, and for options that it doesn't have."""
    if to not in FORMATS:
        raise UserError(f"There is no export to {to!r}; {nearest(to, FORMATS)}")
    if options.int8 and options.fp16:
        raise UserError("An export has integers of 8 bits or floats of 16 bits: give int8=True or fp16=True, not both.")
    if options.precision not in FORMATS[to]:
        option = "int8=True" if options.int8 else "fp16=True"
        raise UserError(f"The export to {to} is in {' or '.join(FORMATS[to])}, not in {options.precision}: leave {option} out.")
