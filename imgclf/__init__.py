"""Image classification research in JAX/Flax: from a folder of photos to a trained, evaluated, explained classifier.

    import imgclf
    classifier = imgclf.load("runs/quickstart")
    classifier.predict(["photo.jpg"])

Importing imgclf is quick: JAX is imported when it is needed, no accelerator is touched before.
"""

from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError
from imgclf.platform_flags import set_xla_flags

if TYPE_CHECKING:
    from imgclf.deploy.predict import Predictor, load

__version__ = "0.1.0"
__all__ = ["Predictor", "UserError", "load"]

set_xla_flags()


def __getattr__(name: str) -> Any:
    if name in ("Predictor", "load"):
        from imgclf.deploy import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
