"""Image classification research in JAX/Flax: from a folder of photos to a trained, evaluated, explained classifier.

    import imgclf
    data = imgclf.load_images("image")
    train, test = data.split(0.8, seed=2)
    classifier = imgclf.create(train)
    print(classifier.evaluate(test))

Importing imgclf is quick: JAX is imported when it is needed, no accelerator is touched before.
"""

import importlib
from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError
from imgclf.runtime.platform_flags import set_xla_flags

if TYPE_CHECKING:
    from imgclf.deploy.classifier import Classifier, load
    from imgclf.image_data import ImageData, load_images
    from imgclf.workflows.create import create

__version__ = "0.1.0"
__all__ = ["Classifier", "ImageData", "UserError", "create", "load", "load_images"]

set_xla_flags()


_HOMES = {
    "Classifier": "imgclf.deploy.classifier",
    "ImageData": "imgclf.image_data",
    "create": "imgclf.workflows.create",
    "load": "imgclf.deploy.classifier",
    "load_images": "imgclf.image_data",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
