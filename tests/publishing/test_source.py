"""The code in a bundle: wheels made again of what is installed, and the modules that a config names."""

import importlib.metadata
import tomllib
import zipfile
from pathlib import Path

import pytest

from imgclf.config import default_config
from imgclf.errors import UserError
from imgclf.publishing import lock, source

OWN = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import helper\nimport numpy\nimport json\nfrom imgclf.errors import UserError\n")
    (tmp_path / "helper.py").write_text("import mine\nVALUE = 1\n")
    (tmp_path / "apart.py").write_text("")
    return tmp_path


def test_modules_of_a_config_are_found_with_what_they_import(own_modules):
    config = default_config()
    config.optimizer.name = "mine:make"
    found = source.user_code(config)
    assert found.fields == {"optimizer.name": "mine:make"}
    assert found.files == {"mine.py": own_modules / "mine.py", "helper.py": own_modules / "helper.py"}
    assert found.distributions == ("numpy",)


def test_packages_of_a_config_are_taken_whole(own_modules):
    (own_modules / "pack" / "inner").mkdir(parents=True)
    for name in ("pack/__init__.py", "pack/inner/code.py"):
        (own_modules / name).write_text("")
    config = default_config()
    config.model.name = "pack.inner.code:build"
    assert set(source.user_code(config).files) == {"pack/__init__.py", "pack/inner/code.py"}


def test_a_module_that_is_not_there_is_named(own_modules):
    config = default_config()
    config.data.source = "nowhere:Source"
    with pytest.raises(UserError, match=r"config\.data\.source names the module 'nowhere'"):
        source.user_code(config)


def test_a_config_without_code_has_none():
    found = source.user_code(default_config())
    assert (found.fields, found.files, found.distributions) == ({}, {}, ())


def test_what_is_installed_becomes_a_wheel_again(tmp_path):
    (first := tmp_path / "1").mkdir()
    (second := tmp_path / "2").mkdir()
    for folder in (first, second):
        source._repack(importlib.metadata.distribution("packaging"), folder)
    (wheel,) = first.iterdir()
    assert wheel.name.startswith("packaging-")
    assert wheel.read_bytes() == (second / wheel.name).read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        record = archive.read(next(name for name in names if name.endswith("RECORD"))).decode()
    assert "packaging/version.py" in names
    assert not [name for name in names if name.endswith((".pyc", "INSTALLER"))]
    assert {line.split(",")[0] for line in record.splitlines()} == set(names)
    source.check_wheels(tmp_path)


def test_wheels_that_unfold_too_far_are_refused(tmp_path, monkeypatch):
    (tmp_path / "source").mkdir()
    wheel = tmp_path / "source" / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.py", b"\0" * 5_000_000)
    source.check_wheels(tmp_path)
    monkeypatch.setattr(source, "_LARGEST", 1_000_000)
    with pytest.raises(UserError, match="unfolds to more than 1,000,000 bytes"):
        source.check_wheels(tmp_path)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../x.py", b"")
    with pytest.raises(UserError, match="lead out of its folder"):
        source.check_wheels(tmp_path)
    wheel.write_bytes(b"no zip")
    with pytest.raises(UserError, match="is no wheel"):
        source.check_wheels(tmp_path)


def test_the_lock_has_what_a_run_needs_and_nothing_else():
    needed = lock.distributions(OWN)
    assert {"jax", "jaxlib", "flax", "numpy", "pyarrow", "huggingface-hub", "h5py", "packaging"} <= set(needed)
    assert "hypothesis" not in lock.distributions(['hypothesis; extra == "test"', 'packaging; python_version > "3"'])
    assert not {"imgclf", "pytest", "hypothesis", "moto"} & set(needed)
    assert "hypothesis" in lock.distributions(OWN, ["hypothesis"])
    with pytest.raises(UserError, match="no-such-thing is not installed"):
        lock.distributions(OWN, ["no-such-thing"])
