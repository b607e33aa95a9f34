"""Config fields, their checks, and saved configs."""

import ast
import json

import pytest

from imgclf import config as config_lib
from imgclf.config import default_config
from imgclf.config.validation import validate
from imgclf.data.packing import manifest
from imgclf.data.packing.forms import Form
from imgclf.errors import UserError


@pytest.fixture
def config():
    config = default_config()
    config.data.source = "digits"
    return config


def test_the_defaults_are_valid(config):
    validate(config)


def test_every_shipped_config_is_valid(tmp_path):
    assert len(config_lib.shipped()) >= 7
    pack = manifest.Manifest("photos", "", Form("jpeg", 256, 90), False, 0, (), (), "", True, False, (), {}, ())
    (tmp_path / "pack.json").write_text(json.dumps(pack.to_json()))
    for name, file in config_lib.shipped().items():
        validate(config_lib.load_config(name if name == "quickstart" else f"{name}:{tmp_path}"))
        about = ast.get_docstring(ast.parse(file.read_text()))
        for section in ("Cost:", "Expected", f"Command: imgclf train {name}"):
            assert section in about, f"{file.name} does not state {section}"


def test_a_saved_config_reads_back_equal(config):
    config.data.image_size = (200, 150)
    config.optimizer.weight_decay_table = ((".*/bias", 0.0), (".*", 0.5))
    again = config_lib.from_json(config_lib.to_json(config))
    assert config_lib.flatten(again) == config_lib.flatten(config)
    assert not config_lib.changes(config, again)


def test_fields_that_a_saved_config_lacks_get_their_defaults(config):
    assert config_lib.from_json('{"data": {"source": "digits"}}').train.duration == default_config().train.duration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"data": {"sorce": "digits"}}', "did you mean"),
        ('{"traain": {"duration": "1 steps"}}', "no config field 'traain'"),
        ('{"seed": "one"}', "config.seed='one'"),
    ],
)
def test_a_broken_saved_config_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        config_lib.from_json(text)


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("data.sorce", "data.source"),
        ("learning_rate", "optimizer.learning_rate"),
        ("data.split", "group of fields"),
        ("zzz", "There is no config field 'zzz'. All fields stand in imgclf/config/fields.py."),
    ],
)
def test_unknown_fields_name_the_nearest(field, hint):
    with pytest.raises(UserError, match=hint.replace(".", r"\.")):
        config_lib.check_field(field)


def test_a_config_file_cannot_set_an_unknown_field():
    with pytest.raises(AttributeError, match="sorce"):
        default_config().data.sorce = "digits"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.resize", "stretch", "valid"),
        ("data.image_size", (32,), "height, width"),
        ("data.image_size", ("a", "b"), "height, width"),
        ("augment.image_size", (32,), "or \\(\\) for data.image_size"),
        ("data.std", (1.0, 0.0, 1.0), "above 0"),
        ("data.split.fractions", (0.5, 0.5, 0.5), "add up to 1"),
        ("augment.flip", 1.5, "between 0 and 1"),
        ("augment.crop_scale", (0.9, 0.1), "smallest, largest"),
        ("augment.policy", "randaugment", "did you mean 'rand_augment'"),
        ("augment.policy_args", "magnitude=9", "needs config.augment.policy"),
        ("loader.batch_size", 0, "1 or more"),
        ("train.duration", "ten epochs", "not a duration"),
        ("train.best_metric", "val_acc", "val_"),
        ("optimizer.learning_rate", 0.0, "above 0"),
        ("model.batch_norm_group", 1, "0, or 2 or more images"),
        ("model.batch_norm_group", 24, "batch_size=32; use groups of 16 or 32, or batches of a multiple of 24"),
        ("model.batch_norm_group", 5, "batch_size=32; use groups of 4 or 8, or batches of a multiple of 5"),
        ("optimizer.args", "momentum", "momentum=0.9"),
        ("optimizer.args", "momentum=__import__('os')", "not a list of arguments"),
        ("optimizer.schedule.boundaries", ("half",), "not a duration"),
        ("optimizer.weight_decay_table", (("(", 1.0),), "not .regex, multiplier"),
        ("optimizer.weight_decay_table", ((".*",),), "not .regex, multiplier"),
    ],
)
def test_invalid_values_are_refused_by_name(config, field, value, message):
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as error:
        validate(config)
    assert f"config.{field}" in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data.split.method": "kfold", "data.split.fold": 5}, "0 to 4"),
        ({"train.early_stopping.patience": 3, "train.best_metric": ""}, "best_metric"),
    ],
)
def test_impossible_combinations_are_refused(config, changed, message):
    config.update_from_flattened_dict(changed)
    with pytest.raises(UserError, match=message):
        validate(config)


def test_changes_name_only_what_alters_the_result(config):
    other = config_lib.from_json(config_lib.to_json(config))
    other.loader.threads, other.train.log_every = 7, "1 steps"
    assert not config_lib.changes(config, other)
    other.optimizer.learning_rate = 0.5
    assert config_lib.changes(config, other) == {"optimizer.learning_rate": (0.001, 0.5)}


def test_fields_are_set_by_name(config):
    config_lib.override(config, {"data.image_size": [32, 48], "data.columns": {"label": "species"}, "optimizer.learning_rate": 1})
    assert (config.data.image_size, config.data.columns.label, config.optimizer.learning_rate) == ((32, 48), "species", 1.0)
    for fields, told in (({"data.columns": {"lable": "x"}}, "did you mean"), ({"seed": "one"}, "config.seed='one' has the wrong type")):
        with pytest.raises(UserError, match=told):
            config_lib.override(config, fields)
