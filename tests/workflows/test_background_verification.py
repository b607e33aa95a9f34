"""A training that begins before its images are verified."""

import json

import numpy as np
import pandas as pd
from color_images import write_folder
from rich.console import Console

from imgclf.config import default_config
from imgclf.workflows import train


def test_a_run_in_the_background_quarantines_what_it_finds_and_scores_what_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "cache"))
    photos = write_folder(tmp_path / "photos")
    (photos / "blue" / "copy.png").write_bytes((photos / "red" / "00.png").read_bytes())
    config = default_config()
    config.data.path, config.data.image_size, config.data.verify = str(photos), (8, 8), "background"
    config.loader.batch_size, config.loader.eval_batch_size = 16, 16
    config.model.cnn.widths, config.model.cnn.dense = (4,), ()
    config.train.method, config.train.duration, config.eval.explain = "fit", "4 steps", 0
    console = Console(quiet=True)
    results = train.train(config, tmp_path / "run", console=console)
    table = pd.read_parquet(tmp_path / "run" / "dataset.parquet")
    assert "red/broken.jpg" in set(table["id"])  # the split is of what was listed
    quarantine = pd.read_csv(tmp_path / "run" / "quarantine.csv")
    assert quarantine[["id", "reason"]].to_numpy().tolist() == [["red/broken.jpg", "truncated"]]
    audit = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert audit["looked_at"] == {"images": len(table), "of": len(table)}
    assert audit["exact_duplicates"]["groups"] == [["blue/copy.png", "red/00.png"]]
    test = table[(table["split"] == results["split"]) & (table["id"] != "red/broken.jpg")]
    assert results["n"] == len(test) == np.sum(results["confusion"])
    assert any("quarantine" in note for note in results["notes"])
