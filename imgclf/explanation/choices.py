"""The ways to explain an image, by name; without JAX, so that a wrong one is told at once."""

from typing import Literal, get_args

from imgclf.errors import UserError, nearest

Method = Literal["hirescam", "occlusion"]
NAMES: dict[Method, str] = {"hirescam": "HiResCAM", "occlusion": "Occlusion"}


def check_method(method: str) -> Method:
    """Raises a UserError for a method that there isn't."""
    for known in get_args(Method):
        if method == known:
            return known
    raise UserError(f"method={method!r} is no explanation; {nearest(method, get_args(Method))}")
