"""Image classification research in JAX/Flax: from a folder of photos to a trained, evaluated, explained classifier.

    import imgclf
    data = imgclf.load_images("image")
    train, test = data.split(0.8, seed=2)
    classifier = imgclf.create(train)
    print(classifier.evaluate(test))

Importing imgclf is quick: JAX is imported when it is needed, no accelerator is touched before.
"""

from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError
from imgclf.platform_flags import set_xla_flags

if TYPE_CHECKING:
    from imgclf.deploy.predict import Predictor, load
    from imgclf.interface import ImageData, create, load_images

__version__ = "0.1.0"
__all__ = ["ImageData", "Predictor", "UserError", "create", "load", "load_images"]

set_xla_flags()


def __getattr__(name: str) -> Any:
    if name in ("Predictor", "load"):
        from imgclf.deploy import predict

        return getattr(predict, name)
    if name in ("ImageData", "create", "load_images"):
        from imgclf import interface

        return getattr(interface, name)
    raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
