"""`imgclf openimages`, against the local release."""

import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from imgclf.cli.commands import app
from imgclf.errors import UserError


@pytest.fixture
def run(server, own_cache):
    """Calls the command with the local release; returns its output without line breaks."""

    def call(*words, mirror=False):
        where = ["--base-url", server.url("release/")] + (["--mirror-url", server.url("mirror/")] if mirror else [])
        result = CliRunner().invoke(app, ["openimages", *map(str, words), *where], env={"COLUMNS": "200"})
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_get_from_names_to_a_table(run, server, tmp_path):
    output = run("get", "FRENCH FRY", "--out", tmp_path / "fries", "--split", "val", "--background", 2, mirror=True)
    for line in ("French fries  validation     75      66", "ok          66", "CC BY 2.0", f"imgclf train openimages_cnn:{tmp_path}/fries"):
        assert line in output
    table = pd.read_csv(tmp_path / "fries" / "crops.csv", dtype={"group": str})
    assert set(table["label"]) == {"French fries", "background"}
    assert table["group"].nunique() == 66
    assert all((tmp_path / "fries" / path).exists() for path in table["path"])
    attribution = pd.read_csv(tmp_path / "fries" / "ATTRIBUTION.csv", dtype=str)
    assert len(attribution) == 66
    assert attribution["changes"].str.startswith("scaled to 1,024 px by Open Images; cropped to").all()
    run("get", "French fries", "--out", tmp_path / "fries", "--split", "validation", "--background", 2, mirror=True)
    assert set(server.photo_requests().values()) == {1}


def test_the_config_reads_what_get_made(run, tmp_path, root, monkeypatch):
    run("get", "French fries", "--out", tmp_path / "fries", "--split", "val", "--background", 1, "--per-class", 10, mirror=True)
    monkeypatch.syspath_prepend(str(root / "configs"))
    import openimages_cnn

    config = openimages_cnn.get_config(str(tmp_path / "fries"))
    assert (config.data.source, config.data.path) == ("csv", str(tmp_path / "fries" / "crops.csv"))
    assert openimages_cnn.get_config(str(tmp_path)).data.source == "folder"


def test_select_download_crop_one_after_the_other(run, server, tmp_path):
    folder = tmp_path / "fries"
    assert "Next: imgclf openimages download" in run("select", "french fries", "--out", folder, "--split", "validation", "--per-class", 5)
    runner = CliRunner()
    done = runner.invoke(app, ["openimages", "download", str(folder), "--mirror-url", server.url("mirror/"), "--workers", "2"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["openimages", "crop", str(folder), "--square", "--padding", "0.1", "--format", "png"])
    assert done.exit_code == 0, done.output
    assert "One class trains no classifier" in done.output
    assert len(list(folder.glob("crops/French fries/*.png"))) == 5


def test_classes(run):
    assert "Hamburger  /m/0cdn1  Sandwich" in run("classes", "burgers")
    assert len(run("classes").splitlines()) > 600
    counted = run("classes", "fries", "--counts", "validation")
    assert counted.splitlines()[0].split("  ")[-1] == "boxes in validation"
    assert counted.splitlines()[1].split()[-1] == "75"
    with pytest.raises(UserError, match="did you mean 'Hamburger'"):
        run("classes", "hambrger")


def test_tree(run, tmp_path):
    output = run("tree", "sandwich")
    assert output.splitlines()[0] == "Sandwich"
    assert {line.split()[-1] for line in output.splitlines()[1:3]} == {"Hamburger", "sandwich"}
    assert "Sandwich is a kind of Food." in output
    assert "(parts: Human" in run("tree", "person")
    run("tree", "--html", tmp_path / "tree.html")
    assert "<svg" in (tmp_path / "tree.html").read_text()


def test_all_photos_dead_is_an_error(run, server, tmp_path):
    server.behaviour.update(dict.fromkeys(server.photos, "404"))
    with pytest.raises(UserError, match=r"None of the 66 photos could be had; .*downloads.parquet says why for each"):
        run("get", "French fries", "--out", tmp_path / "fries", "--split", "validation", mirror=True)


def test_get_reaches_the_crops_where_a_photo_can_not_be_had(run, server, tmp_path, quick):
    bad = "001464cfae2a30b8"
    server.behaviour[bad] = "reset"
    words = ("get", "French fries", "--out", tmp_path / "fries", "--split", "validation", "--background", 1)
    for number in range(4):
        output = run(*words, mirror=True)
        assert "1 photo of 66 is missing." in output
        if number < 2:
            assert "1 could not be had just now: give the command again later." in output
        else:
            assert "1 failed in 3 runs and will not be asked for again; --runs 4 asks once more." in output
        table = pd.read_csv(tmp_path / "fries" / "crops.csv", dtype={"group": str})
        assert table["group"].nunique() == 65
        assert bad not in set(table["group"])
    before = server.photo_requests()[bad]
    server.behaviour.clear()
    assert "missing" not in run(*words, "--runs", 4, mirror=True)
    assert server.photo_requests()[bad] == before + 1


def test_mistakes_are_one_sentence_with_exit_code_2(server, own_cache):
    command = [sys.executable, "-c", "from imgclf.cli import main; main()"]
    words = ["openimages", "select", "Hambrger", "--out", "x", "--base-url", server.url("release/")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: Open Images has no class 'Hambrger' with boxes; did you mean 'Hamburger' or 'Hammer' or 'Hamster'?\n"


def test_nothing_here_needs_jax():
    code = (
        "import sys; from imgclf.openimages import *; import imgclf.openimages.downloader, imgclf.openimages.crops; "
        "assert 'jax' not in sys.modules, 'jax'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_has_examples():
    for command in ("classes", "tree", "select", "download", "crop", "get"):
        result = CliRunner().invoke(app, ["openimages", command, "--help"])
        assert result.exit_code == 0
        assert f"imgclf openimages {command}" in result.output
