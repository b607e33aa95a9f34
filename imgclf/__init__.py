"""Image classification research in JAX/Flax: from a folder of photos to a trained, evaluated, explained classifier.

    import imgclf
    data = imgclf.load_images("image")
    train, test = data.split(0.8, seed=2)
    classifier = imgclf.create(train)
    print(classifier.evaluate(test))

All that the `imgclf` command does can be called, too: `imgclf.train("quickstart")`, `imgclf.evaluate("runs/quickstart")`, `imgclf.lr_find`,
`imgclf.plan`, `imgclf.tune`, `imgclf.find_label_errors`, `imgclf.find_scenes`, `imgclf.robustness`, `imgclf.show`, `imgclf.balance`,
`imgclf.pack_data`, `imgclf.serve`, `imgclf.bundle`, `imgclf.reproduce`, `imgclf.push`.

Importing imgclf is quick: JAX is imported when it is needed, no accelerator is touched before.
"""

import importlib
from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError
from imgclf.runtime.platform_flags import set_xla_flags

if TYPE_CHECKING:
    from imgclf.config.loading import load_config
    from imgclf.deploy.classifier import Classifier, load
    from imgclf.image_data import ImageData, load_images
    from imgclf.publishing.hub import push
    from imgclf.serving.server import serve
    from imgclf.workflows.balance import balance
    from imgclf.workflows.bundle import bundle
    from imgclf.workflows.compare import compare
    from imgclf.workflows.create import create
    from imgclf.workflows.evaluate import evaluate
    from imgclf.workflows.explain import explain
    from imgclf.workflows.label_errors import find_label_errors
    from imgclf.workflows.lr_find import lr_find
    from imgclf.workflows.pack import pack_data
    from imgclf.workflows.plan import plan
    from imgclf.workflows.reproduce import reproduce
    from imgclf.workflows.robustness import robustness
    from imgclf.workflows.scenes import find_scenes
    from imgclf.workflows.show import show
    from imgclf.workflows.train import train
    from imgclf.workflows.tune import tune

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "ImageData",
    "UserError",
    "balance",
    "bundle",
    "compare",
    "create",
    "evaluate",
    "explain",
    "find_label_errors",
    "find_scenes",
    "load",
    "load_config",
    "load_images",
    "lr_find",
    "pack_data",
    "plan",
    "push",
    "reproduce",
    "robustness",
    "serve",
    "show",
    "train",
    "tune",
]

set_xla_flags()


_HOMES = {
    "Classifier": "imgclf.deploy.classifier",
    "ImageData": "imgclf.image_data",
    "balance": "imgclf.workflows.balance",
    "bundle": "imgclf.workflows.bundle",
    "compare": "imgclf.workflows.compare",
    "create": "imgclf.workflows.create",
    "evaluate": "imgclf.workflows.evaluate",
    "explain": "imgclf.workflows.explain",
    "find_label_errors": "imgclf.workflows.label_errors",
    "find_scenes": "imgclf.workflows.scenes",
    "load": "imgclf.deploy.classifier",
    "load_config": "imgclf.config.loading",
    "load_images": "imgclf.image_data",
    "lr_find": "imgclf.workflows.lr_find",
    "pack_data": "imgclf.workflows.pack",
    "plan": "imgclf.workflows.plan",
    "push": "imgclf.publishing.hub",
    "reproduce": "imgclf.workflows.reproduce",
    "robustness": "imgclf.workflows.robustness",
    "serve": "imgclf.serving.server",
    "show": "imgclf.workflows.show",
    "train": "imgclf.workflows.train",
    "tune": "imgclf.workflows.tune",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
