"""The typed view of the config: it is what default_config gives, and a type checker knows its fields."""

import json
import re
import subprocess
import sys
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imgclf.config import default_config, load_config
from imgclf.config.fields import Config, Fields
from imgclf.config.group import Group
from imgclf.errors import UserError
from imgclf.training import class_weights


def test_the_defaults_are_those_of_the_classes_and_of_their_types():
    def compare(group: type[Group], fields: Fields) -> int:
        kinds = get_type_hints(group)
        assert sorted(kinds) == sorted(fields.keys())
        count = 0
        for name, kind in kinds.items():
            if isinstance(kind, type) and issubclass(kind, Group):
                count += compare(kind, fields[name])
            else:
                assert fields[name] == getattr(group, name)
                kinds_of = get_args(kind) if isinstance(kind, UnionType) else (kind,)
                assert type(fields[name]) in [get_origin(one) or one for one in kinds_of], name
                count += 1
        return count

    assert compare(Config, default_config()) > 100


@pytest.fixture(scope="module")
def checked(tmp_path_factory, root):
    pytest.importorskip("mypy")
    file = tmp_path_factory.mktemp("typed") / "use.py"
    files = ("fields.py", "training_fields.py", "group.py", "written_values.py")  # these alone, so that mypy need not read JAX
    for name in files:
        text = (root / "imgclf" / "config" / name).read_text(encoding="utf-8")
        text = re.sub(r"imgclf\.config\.(group|training_fields|written_values)", r"\1", text)
        (file.parent / name).write_text(text, encoding="utf-8")
    file.write_text(
        "from fields import default_config\n"
        "config = default_config()\n"
        "config.optimizer.learning_rate = 0.1\n"
        "config.optimizer.lerning_rate = 0.1\n"
        "config.train.duration = ('5', 'epochs')\n"
        "reveal_type(config.data.split.fractions)\n"
    )
    options = ["--follow-imports=skip", "--ignore-missing-imports", "--config-file="]
    command = [sys.executable, "-m", "mypy", *options, "use.py", *files]
    return subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False).stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (4, '"OptimizerConfig" has no attribute "lerning_rate"; maybe "learning_rate"?'),
        (5, "Incompatible types in assignment"),
        (6, 'Revealed type is "tuple[float, float, float]"'),
    ],
)
def test_a_type_checker_knows_the_fields(checked, line, said):
    assert any(f"use.py:{line}:" in told and said in told.replace("builtins.", "") for told in checked), checked


def test_and_has_nothing_else_to_say(checked):
    assert not [told for told in checked if "use.py:3:" in told]


@pytest.mark.parametrize(
    "value",
    [
        {"Cat": "cat", "kitten": "cat"},
        pd.Series({"Cat": "cat", "kitten": "cat"}),
        [["Cat", "cat"], ["kitten", "cat"]],
        ("Cat=cat", "kitten=cat"),
        "Cat=cat,kitten=cat",
        "{'Cat': 'cat', 'kitten': 'cat'}",
        "('Cat=cat', 'kitten=cat')",
        '[["Cat", "cat"], ["kitten", "cat"]]',
    ],
)
def test_a_class_map_is_taken_as_people_write_it_at_every_door(value, tmp_path):
    rows = (("Cat", "cat"), ("kitten", "cat"))
    assert load_config("quickstart", {"data.class_map": value}).data.class_map == rows
    config = default_config()
    config.data.class_map = value
    assert config.data.class_map == rows
    if isinstance(value, str):
        assert load_config("quickstart", [f"data.class_map={value}"]).data.class_map == rows
    if isinstance(value, dict | list):
        (tmp_path / "c.json").write_text(json.dumps({"data": {"class_map": value}}))
        assert load_config(tmp_path / "c.json").data.class_map == rows


def test_a_class_map_of_text_that_can_t_be_read_is_told_with_the_fields_name():
    with pytest.raises(UserError, match=r"config\.data\.class_map='Cat'.*NAME=VALUE"):
        load_config("quickstart", ["data.class_map=Cat"])
    assert load_config("quickstart", ["data.class_map='a=b'='c,d'"]).data.class_map == (("a=b", "c,d"),)


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 9), min_size=1))
def test_class_weights_are_taken_as_a_dict_whatever_the_names(weights):
    assume(all(name.strip() for name in weights))
    text = load_config("quickstart", {"train.class_weights": weights}).train.class_weights
    assert class_weights.parse(text) == weights
    assert class_weights.parse(load_config("quickstart", [f"train.class_weights={weights!r}"]).train.class_weights) == weights
