"""A model of the user's own, config.model.name="module:builder": trained, saved, loaded; with weights; and what can be wrong with it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from networks import created
from rich.console import Console
from safetensors.numpy import save_file

import imgclf
from imgclf.config import Config, default_config
from imgclf.data import augment
from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import conversion, pretrained
from imgclf.probes import features
from imgclf.workflows.train import train

MODULE = """
import jax
import jax.numpy as jnp
from flax import nnx
from imgclf.models import Backbone, heads, layers
from imgclf.models.weights.conversion import Weights, batch_norm, conv, linear, same


class Plain(Backbone):
    def __init__(self, width=8, dtype=jnp.float32, *, rngs):
        self.conv = layers.Conv(3, width, 3, stride=2, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(width, rngs=rngs)
        self.features = width

    def map_size(self, height, width):
        return -(-height // 2), -(-width // 2)

    def __call__(self, image, *, train=False):
        return jax.nn.relu(self.bn(self.conv(image), train=train))


def build(**options):
    return Plain(**options)


def wrong_features(**options):
    backbone = Plain(**options)
    backbone.features = 5
    return backbone


def with_dropout(**options):
    backbone = Plain(**options)
    backbone.dropout = nnx.Dropout(0.5, rngs=options["rngs"])
    return backbone


def nothing(**options):
    return None


def mistaken(**options):
    raise TypeError("a mistake inside")


def without_rngs(dtype):
    return None


a_number = 3
NEW_HEAD = "avgmax"
_FILE = "plain.safetensors"
WEIGHTS = (Weights("mine/plain", "build", "plain", (16, 16), (0.1, 0.2, 0.3), file=_FILE, num_classes=10, variant={"width": 4}),)
CONVERSION = {
    "plain": (
        (r"conv\\.weight", "backbone/conv/kernel", conv),
        *batch_norm("bn", "backbone/bn"),
        (r"fc\\.weight", "head/logits/kernel", linear),
        (r"fc\\.bias", "head/logits/bias", same),
    )
}
"""
NAME = "plain_net_of_a_test:build"


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch) -> Path:
    """The folder of the module, which is the current directory."""
    (tmp_path / "plain_net_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("plain_net_of_a_test", None)


def config_of(name: str = NAME, weights: str = "none") -> Config:
    config = default_config()
    config.data.source, config.data.image_size = "digits", (16, 16)
    config.model.name, config.model.weights = name, weights
    return config


def test_it_trains_is_saved_and_loaded_again(module, monkeypatch):
    config = config_of()
    config.model.variant = "width=6"
    config.data.per_class = 8
    config.train.duration, config.eval.explain = "4 steps", 0
    config.train.method = "fit"
    results = train(config, module / "run", console=Console(quiet=True))
    assert results["steps"] == 4
    assert results["params_total"] == 9 * 3 * 6 + 2 * 6 + 2 * 6 * 10 + 10  # the head is NEW_HEAD's: average and maximum

    classifier = imgclf.load(module / "run")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    probabilities = classifier.predict_probabilities([image])
    classifier.save(module / "saved")
    np.testing.assert_array_equal(imgclf.load(module / "saved").predict_probabilities([image]), probabilities)

    (module / "elsewhere").mkdir()
    monkeypatch.chdir(module / "elsewhere")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(module)])
    del sys.modules["plain_net_of_a_test"]
    with pytest.raises(UserError, match=r"model\.name='plain_net_of_a_test:build': there is no module .* PYTHONPATH"):
        imgclf.load(module / "saved")


def tensors(classes: int = 10) -> dict[str, np.ndarray]:
    shapes = {"conv.weight": (4, 3, 3, 3), **{f"bn.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")}}
    shapes |= {"fc.weight": (classes, 4), "fc.bias": (classes,)}
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.5, 1.0, shape).astype(np.float32) for name, shape in shapes.items()}


def test_its_weights_are_loaded_as_a_familys(module):
    place = module / "cache" / "weights" / "mine" / "plain" / "plain.safetensors"
    place.parent.mkdir(parents=True)
    save_file(tensors(), place)
    config = pretrained.resolve(config_of(weights="mine/plain"), 10)
    assert (config.data.mean, config.model.variant, config.model.head.kind) == ((0.1, 0.2, 0.3), "width=4", "family")
    network = created(config, 10)
    np.testing.assert_array_equal(network.backbone.conv.kernel[...], conversion.conv(tensors()["conv.weight"]))
    np.testing.assert_array_equal(network.head.logits.kernel[...], tensors()["fc.weight"].T)
    assert list(registry.weights(NAME)) == ["mine/plain"]
    with pytest.raises(UserError, match=r"mine/plain.*are no known weights|are no known weights.*'mine/plain'"):
        pretrained.find("mine/plane", NAME)


def test_a_file_of_its_weights_is_recognised(module):
    save_file(tensors(7), module / "mine.safetensors")
    entry = pretrained.find(f"path:{module / 'mine.safetensors'}", NAME)
    assert (entry.model, entry.layout, entry.num_classes, entry.source) == (NAME, "plain", 7, "mine/plain")


def test_features_are_not_taken_from_a_cache_of_other_code(module):
    def identity() -> dict:
        config = pretrained.resolve(config_of(), 10)
        return features._identity(config, created(config, 10), "0", augment.Preprocessing.of(config).evaluation[0])

    before = identity()
    assert identity() == before
    path = module / "plain_net_of_a_test.py"
    path.write_text(MODULE.replace("jax.nn.relu", "jax.nn.silu"))
    assert identity() != before


@pytest.mark.parametrize(
    ("name", "variant", "told"),
    [
        ("build2", "", r"has no 'build2'; did you mean 'build'\?"),
        ("a_number", "", "is no builder"),
        ("nothing", "", "returns NoneType, not a backbone"),
        ("wrong_features", "", r"returns maps of shape \(8, 8, 8\), but states \(8, 8, 5\)"),
        ("with_dropout", "", r"dropout/rngs.* neither nnx\.Param nor nnx\.BatchStat"),
        ("without_rngs", "", "can't be called with dtype, rngs"),
        ("Plain", "depth=3", "can't be called with depth, dtype, rngs"),
    ],
)
def test_what_is_wrong_with_it_is_told(name, variant, told):
    config = config_of(f"plain_net_of_a_test:{name}")
    config.model.variant = variant
    with pytest.raises(UserError, match=told):
        created(config, 10)


def test_an_error_inside_it_keeps_its_traceback():
    with pytest.raises(TypeError, match="a mistake inside"):
        created(config_of("plain_net_of_a_test:mistaken"), 10)


def test_a_word_without_a_colon_is_no_module():
    with pytest.raises(UserError, match=r"'plain_net' is not a model.*my_module:build"):
        created(config_of("plain_net"), 10)
