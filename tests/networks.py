"""Networks for tests, of configs as a test writes them."""

import types
from typing import Any

import numpy as np

from imgclf import models
from imgclf.config import Config
from imgclf.models.network import Network
from imgclf.models.weights import pretrained


def created(config: Config, classes: int, **options: Any) -> Network:
    """`models.create` of the config with the weights' own choices made."""
    return models.create(pretrained.resolve(config, classes), classes, **options)


def described(platform: str, devices: int = 8) -> Any:
    """A mesh of devices that aren't here, as far as `forms.on_devices_of` looks at one."""
    return types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)] * devices))
