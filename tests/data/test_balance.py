"""Balancing on disk: after the split, siblings in one group, nothing overwritten, continued where it stopped."""

import numpy as np
import pandas as pd
import pytest
from pictures import save
from PIL import Image
from rich.console import Console

from imgclf.config import default_config
from imgclf.data import balance
from imgclf.data.audit import audit
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.workflows.balance import config_for

QUIET = Console(quiet=True)
SIZES = {"cats": 20, "dogs": 10, "owls, old": 45}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    number = 0
    for name, count in SIZES.items():
        for place in range(count):
            number += 1
            # The same file names in every class and, deeper, in one class.
            save(folder / name / ("b/" if place % 2 else "a/") / f"{place // 2}.{'png' if place % 3 else 'jpg'}", number, (48, 40))
    return folder


@pytest.fixture
def config(photos):
    config = config_for(photos)
    config.data.layout = "classes"  # all have folders a and b, as splits would
    return config


def balanced(config, folder, to=25, **options):
    dataset, _ = audit(assign_splits(load_dataset(config), config), config)
    return dataset, balance.write(dataset, config, to, folder, QUIET, **options)


def test_only_training_is_balanced_and_siblings_stay_together(config, tmp_path):
    folder = tmp_path / "out"
    dataset, done = balanced(config, folder)
    split = dataset.table.set_index("id")["split"]
    assert done.after == {"cats": 25, "dogs": 25, "owls, old": done.before["owls, old"]}
    assert done.before["owls, old"] > 25
    table = pd.read_csv(folder / balance.TABLE)
    assert table["path"].is_unique
    assert len(table) == done.made == sum(path.is_file() for path in folder.rglob("*.*g"))
    copies = table[table["path"].str.contains("-copy")]
    assert set(copies["split"]) == {"train"}
    assert (split[table["group"]].to_numpy() == table["split"]).all()  # each is where its original is
    assert copies["group"].value_counts().loc[lambda n: n.index.str.startswith("cats")].max() - 1 <= 1  # round after round
    for part in ("val", "test"):
        assert (table["split"] == part).sum() == (split == part).sum()

    again = default_config()
    again.data.source, again.data.path, again.data.audit = "csv", str(folder / balance.TABLE), "error"
    trained, report = audit(assign_splits(load_dataset(again), again), again)  # would raise for any leak
    assert not report["dropped"]
    assert not len(trained.quarantine)
    assert trained.table["split"].value_counts().to_dict() == table["split"].value_counts().to_dict()
    again.data.split.method = "stratified"  # drawn anew, the copies still follow their originals
    redrawn = assign_splits(load_dataset(again), again).table
    assert (redrawn.groupby("group")["split"].nunique() == 1).all()


def test_files_are_the_originals_and_their_views(config, tmp_path, photos):
    config.augment.rotate, config.augment.flip, config.augment.shift, config.augment.shear, config.augment.zoom = (
        0.0,
        1.0,
        (0, 0),
        0.0,
        (1, 1),
    )
    config.augment.brightness = 0.5
    balanced(config, tmp_path / "out", edge=24, link=True)
    table = pd.read_csv(tmp_path / "out" / balance.TABLE)
    original = table[~table["path"].str.contains("-copy")].iloc[0]
    assert (tmp_path / "out" / original["path"]).resolve() == (photos / original["group"]).resolve()
    siblings = table[table["path"].str.contains("dogs.*-copy.*png")]
    pixels = [np.asarray(Image.open(tmp_path / "out" / path)) for path in siblings["path"]]
    assert {image.shape for image in pixels} == {(20, 24, 3)}
    first = siblings["group"].iloc[0]
    same = [image for image, group in zip(pixels, siblings["group"], strict=True) if group == first]
    assert len(same) > 1
    assert (same[0] != same[1]).any()  # another view each


def test_it_continues_and_overwrites_nothing(config, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    calls = []

    def encode(image, extension, real=balance._encoded):
        calls.append(extension)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(image, extension)

    monkeypatch.setattr(balance, "_encoded", encode)
    with pytest.raises(UserError, match="No space left"):
        balanced(config, folder)
    assert not (folder / balance.TABLE).exists()
    assert (folder / balance.SPLIT).exists()
    monkeypatch.undo()
    files = {path: path.read_bytes() for path in folder.rglob("*copy*") if path.suffix != ".part"}
    _, done = balanced(config, folder)
    assert done.found > 0
    assert all(path.read_bytes() == content for path, content in files.items())
    straight = tmp_path / "straight"
    balanced(config, straight)
    for path in straight.rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (folder / path.relative_to(straight)).read_bytes()
    assert not list(folder.rglob("*.part"))
    _, done = balanced(config, folder)
    assert done.made == 0
    with pytest.raises(UserError, match="other settings"):
        balanced(config, folder, to=26)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="nothing is overwritten"):
        balanced(config, tmp_path / "mine")


def test_what_files_cannot_hold_is_refused(config):
    for name, value in {"mixup": 0.2, "cutout": 8}.items():
        changed = config.copy_and_resolve_references()
        changed.augment[name] = value
        with pytest.raises(UserError, match=f"config.augment.{name}=.* is not for files"):
            balance.check(changed)
    with pytest.raises(UserError, match="changes nothing"):
        balance.check(default_config())
