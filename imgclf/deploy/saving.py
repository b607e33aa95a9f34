"""`classifier.save("model")`: what `imgclf.load` needs of a run, in a folder of its own."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd

from imgclf import files, outputs
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation import open_set
from imgclf.reporting import leaderboard

MARK = "imgclf_model.json"  # by which a folder that may be replaced is known


def save(predictor: Predictor, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Copies what `imgclf.load` needs of the classifier's run into `folder`; see `Classifier.save`."""
    run = predictor.folder
    if run is None or not (run / "results.json").exists():
        raise UserError(f"The run that this classifier was loaded from is gone ({run}): restore it, or train again.")
    place = files.path_of(folder, "the folder to save to")
    target = place.absolute()
    if target == run.absolute():
        raise UserError(f"{folder} is where this classifier comes from: it is saved there already; choose another folder.")
    of = outputs.identity("saved model", f"from run {run.name}", predictor.sha256)
    outputs.check_folder(target, of, MARK, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing_folder(target) as aside:
            _write(run, aside, of)
    except OSError as error:
        raise UserError(f"{target} can't be written ({error.strerror or error}): make room, or choose another folder.") from error
    return place


def _write(run: Path, folder: Path, of: outputs.Identity) -> None:
    """Fills the folder of a saved model."""
    results = json.loads((run / "results.json").read_text())
    for name in ("config.json", "results.json", "environment.json", "report.html", open_set.FILE, leaderboard.FILE):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    shutil.copytree(run / results["checkpoint"], folder / results["checkpoint"])
    if (run / "dataset.parquet").exists():  # which images it has seen, without their names
        pd.read_parquet(run / "dataset.parquet", columns=["sha256", "split"]).to_parquet(folder / "dataset.parquet", index=False)
    outputs.write_mark(folder / MARK, of)
