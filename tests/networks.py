"""Networks for tests, of configs as a test writes them."""

from typing import Any

from imgclf import models
from imgclf.config import Config
from imgclf.models.network import Network
from imgclf.models.weights import pretrained


def created(config: Config, classes: int, **options: Any) -> Network:
    """`models.create` of the config with the weights' own choices made."""
    return models.create(pretrained.resolve(config, classes), classes, **options)
