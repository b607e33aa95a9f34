"""`imgclf robustness`: clean accuracy is the run's own, the files and the page are there, slips are named."""

import json

from typer.testing import CliRunner

from imgclf.cli import commands


def test_a_run_on_its_test_images_and_on_others(finished, photo_folder, tmp_path):
    run, results = finished
    command = ["robustness", str(run), "--corruptions", "contrast,jpeg", "--severities", "1,5", "--out", str(tmp_path)]
    done = CliRunner().invoke(commands.app, command, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads((tmp_path / "robustness.json").read_text())
    assert (told["split"], told["n"], told["clean"]["top1"]) == ("test", results["n"], results["top1"])
    assert list(told["corruptions"]) == ["contrast", "jpeg"]
    assert list(told["corruptions"]["jpeg"]["severities"]) == ["1", "5"]
    assert told["orientations"]["same"] == told["orientations"]["images"] == results["n"]
    page = (tmp_path / "robustness.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("data:image/webp") == 2 * 3
    assert "<script" not in page
    other = ["robustness", str(run), str(photo_folder), "--corruptions", "jpeg", "--severities", "3", "--out", str(tmp_path)]
    assert CliRunner().invoke(commands.app, other, catch_exceptions=False).exit_code == 0
    told = json.loads((tmp_path / "robustness.json").read_text())
    assert told["n"] == 36
    assert "were trained on" in told["notes"][0]


def test_slips_are_told_before_anything_is_loaded(tmp_path):
    for arguments, message in ((["--severities", "1;2"], "is no list"), (["--corruptions", "blurr"], "no corruption 'blurr'")):
        done = CliRunner().invoke(commands.app, ["robustness", str(tmp_path), *arguments])
        assert message in str(done.exception)
