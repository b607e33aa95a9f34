"""What are the tutorials' evaluation slips worth? Each is made again and repaired: the accuracy claimed, and that on photos nobody touched.

clothing10's 814 photos. A third is kept away from everybody; on the rest each protocol trains and states its accuracy, and its model is
then scored on the third. Files, model and training are the same; only who is on which side differs. Claimed less honest = the slip.

  train = validation        "Classify photos in 600 classes" validates on its own training folder. Its CNN, here at 64 px,
                            up to 50 epochs, early stopping on that.
  augment, then split       "Grocery products" writes augmented copies, then splits them at random: siblings stand on both sides. A plain
                            copy and three by its settings; a logistic probe on MobileNetV2 0.35 at 128 px.
  crops astride             "600 classes" splits crops, not photos. Three overlapping crops (40–70 %) of each photo; those of Open Images
                            overlap less. The same CNN.
  softmax twice             "Rugby or soccer" gives a softmax's output to a loss that expects logits: a slip of training, which inflates no
                            claim. Adam on the same features, as published (1e-5, 500 epochs) and at 1e-3 for 30.

Then imgclf's audit looks at each table of the first three, with and without a column that names the photo (`imgclf openimages get` and
`imgclf data balance` write it): what it finds, and whether it refuses.
Intervals: 95 %, by bootstrap over photos (a photo's crops, copies and seeds go together) and seeds.
Cost: see experiments/README.md.
Command: python experiments/seeds_audit.py [--data DIR] [--weights FILE] [--seeds 3] [--workdir runs/seeds_audit]
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.progress import track

from imgclf import config as config_lib
from imgclf import files, formatting, models
from imgclf.config import Config, default_config
from imgclf.data import augment
from imgclf.data.audit import audit
from imgclf.data.splits import assign_splits, stratify
from imgclf.data.table import Dataset, load_dataset
from imgclf.errors import UserError
from imgclf.evaluation.intervals import central
from imgclf.methods import choice, resolve
from imgclf.methods.base import Task
from imgclf.probes.features import extract
from imgclf.reporting import plots
from imgclf.runtime import compilation_cache
from imgclf.training import sharding

EDGE = 128  # px of the files that are made
RESAMPLES = 4000
S2 = {"augment.rotate": 40.0, "augment.shift": (0.2, 0.2), "augment.shear": 11.459, "augment.zoom": (0.8, 1.2), "augment.flip": 0.5}
CROPS = {"augment.crop_scale": (0.4, 0.7)}
CNN = {
    "data.image_size": (64, 64),
    "data.mean": (0.0, 0.0, 0.0),
    "data.std": (1.0, 1.0, 1.0),
    "augment.rotate": 40.0,
    "augment.shift": (0.2, 0.2),
    "augment.zoom": (0.8, 1.2),
    "augment.flip": 0.5,
    "loader.batch_size": 16,
    "model.cnn.widths": (32, 32, 64),
    "model.cnn.padding": "valid",
    "model.cnn.norm": "none",
    "model.cnn.flatten": True,
    "model.cnn.dense": (64,),
    "model.cnn.dropout": 0.5,
    "train.duration": "50 epochs",
    "train.early_stopping.patience": 4,
    "train.checkpoint_every": "100%",
    "train.log_every": "100%",
    "optimizer.name": "rmsprop",
    "optimizer.args": "decay=0.9, eps=1e-7, eps_in_sqrt=False",
    "optimizer.learning_rate": 5e-4,
}
PROBE = {"data.image_size": (EDGE, EDGE), "model.name": "mobilenet_v2_035", "train.method": "probe", "probe.l2": (0.1,)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A slip of evaluation.

    Attributes:
      files: how many of each photo.
      plain: whether the first of them is the photo itself.
      views: the augmentation that makes the others; none = copies.
      fields: of the config.
      split_by: what the slip deals out: "file" (at random), or "copy" (the first file of a photo trains, the second validates).
    """

    files: int
    plain: bool
    views: dict[str, Any]
    fields: dict[str, Any]
    split_by: str


CASES = {
    "train = validation": Case(2, True, {}, CNN, "copy"),
    "augment, then split": Case(4, True, S2, PROBE, "file"),
    "crops astride": Case(3, False, CROPS, CNN, "file"),
}


def write_files(case: Case, photos: Dataset, folder: Path) -> pd.DataFrame:
    """Writes each photo's files as JPEG, unless they are there; returns columns id (path in `folder`), label, group (the photo), number."""
    config = default_config()
    config_lib.override(config, case.views)
    rows = []
    for row, (photo, name) in enumerate(zip(photos.table["id"], photos.table["class_name"], strict=True)):
        pixels = None
        for number in range(case.files):
            path = f"{name}/{Path(photo).parts[0]}-{Path(photo).stem}-{number}.jpg"
            rows.append((path, name, photo, number))
            if (folder / path).exists():
                continue
            pixels = photos.reader.read(row, (EDGE, EDGE)) if pixels is None else pixels
            rng = None if not case.views or (case.plain and number == 0) else augment.view_rng(0, photo, number)
            made = augment.view(pixels, (EDGE, EDGE), "squash", config.augment, rng)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(made).save(folder / f"{path}.part", "JPEG", quality=92)
            (folder / f"{path}.part").replace(folder / path)
    return pd.DataFrame(rows, columns=["id", "label", "group", "number"])


def split(made: pd.DataFrame, case: Case, repaired: bool, seed: int) -> pd.DataFrame:
    """Gives each file to train, val (on which accuracy is claimed) or test (the photos that nobody touches), by the slip or repaired.

    Args:
      made: the files, columns id, label, group, number.

    Returns:
      these, without the files that are not used, and a column split.
    """
    names = sorted(set(made["label"]))
    table = made.assign(class_name=made["label"], label=made["label"].map(names.index), sha256=made["id"])
    fresh = stratify(table, names, {"pool": 2 / 3, "fresh": 1 / 3}, seed, "") == "fresh"
    if case.split_by == "copy":  # the copies serve the slip alone
        used = (table["number"] == 0).to_numpy() | (~fresh & (not repaired))
        table, fresh = table[used], fresh[used]
    pool = table[~fresh]
    if case.split_by == "copy" and not repaired:
        parts = np.where(pool["number"] == 0, "train", "val")
    else:
        by = pool if repaired else pool.assign(group="")
        parts = stratify(by, names, {"train": 0.75, "val": 0.25}, seed, "")
    dealt = np.full(len(table), "test", object)
    dealt[~fresh] = parts
    return table.assign(split=dealt, label=table["class_name"]).drop(columns=["class_name", "sha256"])


def configured(case: Case, folder: Path, weights: str, seed: int, splits: pd.DataFrame, *, groups: bool) -> Config:
    """Writes the table as a CSV beside the files; returns the config that reads it."""
    columns = {"id": "path", "label": "label", "split": "split"} | ({"group": "group"} if groups else {})
    file = folder / f"seed{seed}{'-groups' if groups else ''}.csv"
    files.write_text(file, splits.rename(columns=columns)[list(columns.values())].to_csv(index=False))
    config = default_config()
    config_lib.override(config, case.fields)
    config.data.source, config.data.path, config.seed, config.data.audit = "csv", str(file), seed, "off"
    if "model.name" in case.fields:
        config.model.weights = f"path:{weights}"
    return config


def train(config: Config, splits: pd.DataFrame, workdir: Path) -> pd.DataFrame:
    """Trains once; returns a row for each file of val and test: split, group, correct. What is done is not done again."""
    file = workdir / "answers.csv"
    if not file.exists():
        config = resolve.check(config)
        dataset = assign_splits(load_dataset(config), config)
        config = resolve.resolve(config, len(dataset.class_names))
        model = models.create(config, len(dataset.class_names), tell=lambda said: None)
        trained = choice.check(Task(config, dataset, model, sharding.create_mesh(), Console(quiet=True))).train(workdir)
        group, frames = splits.set_index("id")["group"], []
        for name in ("val", "test"):
            rows, logits = trained.logits_of(name)
            table = dataset.table.iloc[rows]
            correct = logits.argmax(1) == table["label"].to_numpy()
            frames.append(pd.DataFrame({"split": name, "group": group.loc[table["id"]].to_numpy(), "correct": correct.astype(int)}))
        files.write_text(file, pd.concat(frames).to_csv(index=False))
    return pd.read_csv(file)


def audited(config: Config) -> dict[str, Any]:
    """What the audit finds of a table's leaks from train to val, and what it does about them."""
    dataset = assign_splits(load_dataset(config), config)
    found = audit(dataset, config)[1]["in_training"]["val"]
    config = config.copy_and_resolve_references()
    config.data.audit = "fix"
    try:
        dropped = len(audit(dataset, config)[1]["dropped"])
    except UserError as error:
        return found | {"refused": str(error), "dropped": 0}
    return found | {"refused": "", "dropped": dropped}


def resampled(correct: np.ndarray, count: np.ndarray, of_seeds: np.ndarray, of_photos: np.ndarray) -> np.ndarray:
    """Accuracies in resamples of seeds and photos: all files of a photo come and go together.

    Args:
      correct, count: right answers and answers, int [S, P]; a photo may have none with a seed.
      of_seeds, of_photos: how often each is drawn, int [R, S] and [R, P].

    Returns:
      f64 [R].
    """
    right, of = (np.einsum("rs,rs->r", of_seeds, of_photos @ values.T) for values in (correct, count))
    return right / of


def accuracies(answers: list[pd.DataFrame], seed: int = 0) -> dict[str, Any]:
    """Claimed (val) and honest (test) accuracy over seeds, and claimed less honest, with intervals; `answers` are of one seed each."""
    photos = sorted(set().union(*(frame["group"] for frame in answers)))
    rng = np.random.default_rng(seed)
    of_seeds = rng.multinomial(len(answers), np.full(len(answers), 1 / len(answers)), RESAMPLES)
    of_photos = rng.multinomial(len(photos), np.full(len(photos), 1 / len(photos)), RESAMPLES)
    found: dict[str, Any] = {}
    draws: dict[str, np.ndarray] = {}
    for name, part in (("claimed", "val"), ("honest", "test")):
        sums = [frame[frame["split"] == part].groupby("group")["correct"].agg(["sum", "count"]) for frame in answers]
        correct, count = np.moveaxis(np.stack([frame.reindex(photos, fill_value=0).to_numpy() for frame in sums]), 2, 0)
        draws[name] = resampled(correct, count, of_seeds, of_photos)
        found[name] = float(correct.sum() / count.sum())
        found[f"{name}_ci95"] = central(draws[name])
    found["slip"] = found["claimed"] - found["honest"]
    found["slip_ci95"] = central(draws["claimed"] - draws["honest"])
    return found


def fit_head(
    features: np.ndarray, labels: np.ndarray, classes: int, *, twice: bool, learning_rate: float, epochs: int, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains a dense layer by Adam in batches of 32, on cross-entropy of its outputs or, `twice`, of their softmax; returns it."""
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    x, y = jnp.asarray((features - mean) / deviation), jnp.asarray(labels)
    key = jax.random.key(seed)
    limit = np.sqrt(6 / (x.shape[1] + classes))  # Glorot, as in Keras
    params = {"kernel": jax.random.uniform(key, (x.shape[1], classes), minval=-limit, maxval=limit), "bias": jnp.zeros(classes)}
    tx, steps = optax.adam(learning_rate), len(x) // 32

    def loss(params: dict[str, jax.Array], rows: jax.Array) -> jax.Array:
        logits = x[rows] @ params["kernel"] + params["bias"]
        logits = jax.nn.softmax(logits) if twice else logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(params, rows), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
        order = jax.random.permutation(key, len(x))[: steps * 32].reshape(steps, 32)
        return jax.lax.scan(step, carry, order)[0], None

    (params, _), _ = jax.jit(lambda carry, keys: jax.lax.scan(epoch, carry, keys))((params, tx.init(params)), jax.random.split(key, epochs))
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    return lambda features: (features - mean) / deviation @ kernel + bias


def softmax_twice(photos: Dataset, data: str, weights: str, seeds: int) -> dict[str, list[pd.DataFrame]]:
    """Arm → answers of each seed: `test` = with one softmax, `val` = with two, on the same untouched photos."""
    config = default_config()
    config_lib.override(config, PROBE)
    config.data.path, config.model.weights = data, f"path:{weights}"
    config = resolve.resolve(resolve.check(config), len(photos.class_names))
    model = models.create(config, len(photos.class_names), tell=lambda said: None)
    features, labels = extract(config, model, photos), photos.table["label"].to_numpy()
    found: dict[str, list[pd.DataFrame]] = {}
    for name, learning_rate, epochs in (("as published", 1e-5, 500), ("at 1e-3", 1e-3, 30)):
        for seed in range(seeds):
            fresh = stratify(photos.table, photos.class_names, {"pool": 2 / 3, "fresh": 1 / 3}, seed, "") == "fresh"
            frames = []
            for part, twice in (("test", False), ("val", True)):
                known, given = features[~fresh], labels[~fresh]
                classify = fit_head(
                    known, given, len(photos.class_names), twice=twice, learning_rate=learning_rate, epochs=epochs, seed=seed
                )
                correct = (classify(features[fresh]).argmax(1) == labels[fresh]).astype(int)
                frames.append(pd.DataFrame({"split": part, "group": photos.table["id"][fresh].to_numpy(), "correct": correct}))
            found.setdefault(name, []).append(pd.concat(frames))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/clothing10")
    parser.add_argument("--weights", default="../shared/weights/mobilenet_v2_0.35_224_no_top.keras.h5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/seeds_audit"))
    options = parser.parse_args()
    compilation_cache.enable()
    config = default_config()
    config.data.path = options.data
    photos = load_dataset(config)
    results: dict[str, Any] = {"slips": {}, "audit": {}}
    for name, case in CASES.items():
        folder = options.workdir / name.replace(" ", "-").replace(",", "").replace("=", "is")
        made = write_files(case, photos, folder / "files")
        for protocol in ("as published", "repaired"):
            answers = []
            for seed in track(range(options.seeds), f"{name}, {protocol}"):
                splits = split(made, case, protocol == "repaired", seed)
                own = folder / protocol.replace(" ", "-")
                asked = configured(case, folder / "files", options.weights, seed, splits, groups=False)
                answers.append(train(asked, splits, own / f"seed{seed}"))
            results["slips"].setdefault(name, {})[protocol] = accuracies(answers)
        splits = split(made, case, False, 0)
        results["audit"][name] = {
            told: audited(configured(case, folder / "files", options.weights, 0, splits, groups=groups))
            for told, groups in (("files alone", False), ("with the photo's name", True))
        }
    results["softmax twice"] = {
        name: accuracies(own) for name, own in softmax_twice(photos, options.data, options.weights, options.seeds).items()
    }
    files.write_json(options.workdir / "seeds_audit.json", results)
    files.write_text(options.workdir / "seeds_audit.svg", _chart(results))
    files.write_text(options.workdir / "seeds_audit.md", _tables(results))
    Console(soft_wrap=True).print(_tables(results), markup=False, highlight=False)


REPAIRED = {
    "train = validation": "validation apart",
    "augment, then split": "split, then augment",
    "crops astride": "photos kept whole",
}


def _chart(results: dict[str, Any]) -> str:
    rows = []
    for name, protocols in results["slips"].items():
        for told, found in zip((name, REPAIRED[name]), protocols.values(), strict=True):
            rows.append({"name": told, "value": found["slip"], "low": found["slip_ci95"][0], "high": found["slip_ci95"][1]})
    return str(plots.intervals(rows, "claimed less honest accuracy"))


def _tables(results: dict[str, Any]) -> str:
    lines = ["| slip | protocol | claimed | the same model on untouched photos | claimed less honest, points |", "|---|---|---|---|---|"]
    for name, protocols in results["slips"].items():
        for protocol, found in protocols.items():
            lines.append(f"| {name} | {protocol} | {_share(found, 'claimed')} | {_share(found, 'honest')} | {_points(found)} |")
    lines += ["", "| softmax twice | with it | without | difference, points |", "|---|---|---|---|"]
    for name, found in results["softmax twice"].items():
        lines.append(f"| {name} | {_share(found, 'claimed')} | {_share(found, 'honest')} | {_points(found)} |")
    lines += ["", "| audit of the slip's table | columns | validation files with a copy in train | what it does |", "|---|---|---|---|"]
    for name, told in results["audit"].items():
        for columns, found in told.items():
            does = (
                "refuses" if found["refused"] else f"drops {formatting.count(found['dropped'], 'file')}" if found["dropped"] else "nothing"
            )
            lines.append(f"| {name} | {columns} | {found['copies']} of {found['of']} | {does} |")
    return "\n".join(lines) + "\n"


def _share(found: dict[str, Any], name: str) -> str:
    return f"{formatting.percent(found[name])} ({formatting.interval(found[f'{name}_ci95'])})"


def _points(found: dict[str, Any]) -> str:
    low, high = found["slip_ci95"]
    return f"{100 * found['slip']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
