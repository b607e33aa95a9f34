"""The first tutorial's promise: publish {data, code, environment}, so that anyone can train it again in a few lines.

Open Images on loopback, crops, a training, a bundle on S3 on loopback, and its reproduction in an environment made from nothing.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

import imgclf
from imgclf.errors import UserError
from imgclf.openimages import Metadata, dataset
from imgclf.openimages.crops import CropOptions
from imgclf.openimages.jobs import DownloadOptions

pytestmark = pytest.mark.slow  # it installs a hundred packages

QUIET = Console(quiet=True)
FIELDS = {
    "data.image_size": 64,
    "model.cnn.widths": (8, 8),
    "train.duration": "3 epochs",
    "optimizer.learning_rate": 1e-3,
}


def test_from_class_names_to_equal_bits_in_an_empty_environment(shared, tmp_path, monkeypatch):
    for folder in ("openimages", "publishing"):
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / folder))
    import boto3
    from release_server import ReleaseServer
    from s3_server import serving

    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with ReleaseServer(shared) as photos, serving(monkeypatch):
        mirror = photos.url("mirror/")
        dataset.get(
            ["French fries"],
            tmp_path / "fries",
            Metadata("V7", photos.url("release/")),
            splits=["validation"],
            download_options=DownloadOptions(mirror_url=mirror, rate=0),
            crop_options=CropOptions(background=1, split="new"),
        )
        results = imgclf.train("openimages_cnn:fries", "runs/fries", fields=FIELDS, console=QUIET)
        boto3.client("s3").create_bucket(Bucket="open-sandwich")
        bundled = imgclf.bundle("runs/fries", "s3://open-sandwich/fries", console=QUIET)
        assert bundled.sent > 0
        assert imgclf.bundle("runs/fries", "s3://open-sandwich/fries", console=QUIET).sent == 0
        shutil.rmtree("fries")  # from here on there is only what the bundle and Open Images have
        shutil.rmtree("runs")
        shutil.rmtree("cache")

        with pytest.raises(UserError, match="Nothing of it has run"):
            imgclf.reproduce("s3://open-sandwich/fries", console=QUIET)
        found = imgclf.reproduce("s3://open-sandwich/fries", trust=True, mirror_url=mirror, expect=bundled.root, console=QUIET)
        assert [verdict.outcome for verdict in found.verdicts] == ["equal", "noted", "equal", "equal", "equal"], found.verdicts
        assert found.reproduced

        photos.log.clear()
        again = imgclf.reproduce("s3://open-sandwich/fries", retrain=True, trust=True, mirror_url=mirror, console=QUIET)
        assert [verdict.outcome for verdict in again.verdicts] == ["equal", "noted", "equal", "equal", "equal", "equal"], again.verdicts
        assert json.loads((again.folder / "retrained" / "results.json").read_text())["params_sha256"] == results["params_sha256"]
        assert not photos.photo_requests()  # all of them were there by then

        attribution = (again.folder / "bundle" / "data" / "examples.csv").read_text().splitlines()
        assert "licence" in attribution[0]
        assert "CC BY 2.0" in attribution[1]
        path = again.folder / "env" / "bin" / "python"
        assert path.exists()
        assert Path(sys.prefix).resolve() != (again.folder / "env").resolve()
