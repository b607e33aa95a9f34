"""Which config a name stands for, and what is set in it: by flags, from Python, in files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf import config as config_lib
from imgclf.config import default_config, flatten, load_config, run_of
from imgclf.errors import UserError

FILE = """
from imgclf.config import default_config

def get_config(argument="none"):
    config = default_config()
    config.name = argument
    config.data.image_size = 96
    config.train.duration = 5
    config.optimizer.schedule.boundaries = (30, "60%")
    config.freeze.stages = ((2, "head"), ("20%", "none"))
    return config
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart", "quickstart.py", "configs/quickstart.py"])
def test_a_shipped_config_is_found_from_any_folder(here, name):
    assert load_config(name).name == "quickstart"


def test_a_file_gets_what_stands_after_the_colon(here):
    (here / "mine.py").write_text(FILE)
    assert load_config("mine.py").name == "none"
    assert load_config("mine.py:a:b=c").name == "a:b=c"
    assert load_config(here / "mine.py").name == "none"


def test_numbers_become_squares_and_epochs_in_config_files(here):
    (here / "mine.py").write_text(FILE)
    config = load_config("mine.py")
    assert config.data.image_size == (96, 96)
    assert config.train.duration == "5 epochs"
    assert config.optimizer.schedule.boundaries == ("30 epochs", "60%")
    assert config.freeze.stages == (("2 epochs", "head"), ("20%", "none"))
    copy = config.copy_and_resolve_references()
    copy.data.image_size = 8
    assert copy.data.image_size == (8, 8)


@pytest.mark.parametrize(
    "fields",
    [
        ["data.image_size=96", "train.duration=5"],
        {"data.image_size": 96, "train.duration": 5},
        {"data": {"image_size": 96}, "train.duration": "5"},
    ],
)
def test_and_by_flags_and_from_python(fields):
    config = load_config("quickstart", fields)
    assert (config.data.image_size, config.train.duration) == ((96, 96), "5 epochs")


def test_and_in_saved_configs():
    config = config_lib.from_json('{"data": {"image_size": 96}, "train": {"duration": 2.5}}')
    assert (config.data.image_size, config.train.duration) == ((96, 96), "2.5 epochs")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("data.image_size=(96, 64)", (96, 64)),
        ("data.image_size=96,64", (96, 64)),
        ("data.image_size=[96, 64]", (96, 64)),
        ("model.cnn.widths=(4,)", (4,)),
        ("model.cnn.widths=4", (4,)),
        ("probe.l2=()", ()),
        ("probe.l2=1e-3", (1e-3,)),
        ("augment.zoom_joint=true", True),
        ("augment.zoom_joint=False", False),
        ("optimizer.learning_rate=1e-2", 0.01),
        ("optimizer.learning_rate=1", 1.0),
        ("seed=7", 7),
        ("name=a=b", "a=b"),
        ("optimizer.args=momentum=0.9, nesterov=True", "momentum=0.9, nesterov=True"),
        ("optimizer.weight_decay_table=(('.*', 1.0),)", ((".*", 1.0),)),
        ("train.eval_every=0.5", "0.5 epochs"),
        ("train.eval_every=3 steps", "3 steps"),
        ("config.seed=7", 7),
    ],
)
def test_a_value_is_read_by_its_fields_type(assignment, value):
    name = assignment.partition("=")[0].removeprefix("config.")
    assert flatten(load_config("quickstart", [assignment]))[name] == value


@pytest.mark.parametrize("first", ["(8, 16)", "16"])
def test_of_two_values_the_last_counts_tuples_too(first):
    config = load_config("quickstart", [f"model.cnn.widths={first}", "seed=1", "model.cnn.widths=(4,)", "seed=2"])
    assert (config.model.cnn.widths, config.seed) == ((4,), 2)


# Texts with outer blanks, or of a bare number in a duration's place, are normalised.
FIELDS = {name: value for name, value in flatten(default_config()).items() if not isinstance(value, str)}


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=50)
def test_what_is_written_is_what_is_read(data):
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    default = FIELDS[name]
    values = {bool: st.booleans(), int: st.integers(0, 1000), float: st.floats(0, 1e6)}.get(type(default), st.just(default))
    value = data.draw(values)
    assert flatten(load_config("quickstart", [f"{name}={value!r}"]))[name] == value


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed=x", "config.seed='x' is not valid; expected a whole number"),
        ("seed=1.5", "expected a whole number"),
        ("augment.zoom_joint=maybe", "expected True or False"),
        ("data.image_size=wide", "expected a tuple, such as"),
        ("data.sorce=digits", "did you mean 'data.source'"),
        ("data.split=given", "group of fields"),
        ("seed", "write FIELD=VALUE"),
    ],
)
def test_what_can_not_be_set_is_told(assignment, message):
    with pytest.raises(UserError, match=message):
        load_config("quickstart", [assignment])


def test_a_run_is_named_by_its_folder_or_config(here):
    run = here / "run"
    run.mkdir()
    (run / "config.json").write_text(config_lib.to_json(load_config("quickstart", ["seed=3"])))
    assert load_config("run").seed == load_config("run/config.json").seed == load_config(run, {"name": "x"}).seed == 3
    assert run_of(run / "config.json") == run
    assert run_of("quickstart") is None
    (here / "best.json").write_text((run / "config.json").read_text())  # as a study leaves it
    assert load_config("best.json").seed == 3
    assert run_of("best.json") is None


def test_a_bare_name_is_the_shipped_config_and_a_path_is_the_folder(here):
    (here / "quickstart").mkdir()
    (here / "quickstart" / "config.json").write_text(config_lib.to_json(load_config("quickstart", ["seed=3"])))
    assert (load_config("quickstart").seed, load_config("./quickstart").seed) == (0, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quikstart", r"did you mean 'quickstart'\?.*sports_mobilenet"),
        ("nowhere.py", "no config file 'nowhere.py'"),
        ("runs/x/config.json", "no config file 'runs/x/config.json'"),
        ("photos", "no run; to train on the photos in it, write folder:photos"),
        ("quickstart:photos", "takes nothing after a colon"),
        ("folder", "needs the folder of your photos"),
        ("broken.py", r"broken.py, line 2: .* mend the config file"),
        ("empty.py", r"defines no get_config\(\)"),
        ("wrong.py", "can't be used: .*sorce"),
        ("other.py", "returns dict, no config"),
        ("notes.txt", "notes.txt is no config"),
    ],
)
def test_what_is_no_config_is_told(here, name, message):
    (here / "photos").mkdir()
    (here / "notes.txt").write_text("dear diary")
    (here / "broken.py").write_text("x = 1\ny = (\n")
    (here / "empty.py").touch()
    (here / "wrong.py").write_text(FILE.replace("config.name", "config.data.sorce"))
    (here / "other.py").write_text("def get_config(): return {}")
    with pytest.raises(UserError, match=message):
        load_config(name)
