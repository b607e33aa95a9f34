"""The folder of a run, and the images that a workflow works on, with the config in which stands what they decide."""

import cv2
import numpy as np
import pytest
from rich.console import Console

from imgclf import load_config
from imgclf.errors import UserError
from imgclf.workflows import run_folder, scenes, train
from imgclf.workflows.asked import asked_for


def test_the_value_range_is_that_of_the_whole_data_set(tmp_path):
    """Of 12-bit images in 16-bit files, a dark one says nothing by itself."""
    for name, white in (("bright", 4095), ("dark", 90)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(6):
            pixels = np.random.default_rng(k).integers(0, white, (40, 40), np.uint16)
            pixels[0, 0] = white
            cv2.imwrite(str(tmp_path / "photos" / name / f"{k}.png"), pixels)
    asked = asked_for(load_config(f"folder:{tmp_path / 'photos'}", {"data.audit": "off"}))
    checked = train.check(asked.config)
    config, dataset, audit_report = run_folder.images_for(asked, checked, scenes.finder(checked, Console(quiet=True)))
    assert checked.data.value_range == ()
    assert [tuple(row) for row in config.data.value_range] == [("uint16", 0.0, 4095.0)]
    assert len(dataset.table) == 12
    assert audit_report is not None


def test_where_the_photos_cannot_be_reached_before_anything_was_done_nothing_is_said_to_be_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", "1")
    with pytest.raises(UserError, match="tried for 1 s") as told:
        train.train("webdataset:http://127.0.0.1:9/x.tar", tmp_path / "run", console=Console(quiet=True))
    assert "saved" not in str(told.value)
    assert not (tmp_path / "run").exists()
