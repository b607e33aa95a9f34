"""Runs' folders to report on: real scans of digits, a real (nearest-centroid) classifier, metrics through imgclf.evaluation."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from sklearn.datasets import load_digits

from imgclf.config import default_config, to_json
from imgclf.data.splits import subset
from imgclf.data.table import Dataset
from imgclf.evaluation import metrics
from imgclf.reporting import feature_map, samples

DIGITS = ("eight", "five", "nine", "three")
HOSTILE = ("<script>alert(1)</script>", "\"double\" & 'single'", "{{ 7 * 7 }}", "a-class-name-that-goes-on-and-on-without-any-space-" * 3)


@dataclasses.dataclass(frozen=True)
class ListReader:
    images: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.images[row]

    def read(self, row: int, min_size: tuple[int, int]) -> np.ndarray:
        return self.images[row]


def digits_dataset(names: tuple[str, ...], id_format: str, scale: int) -> tuple[Dataset, np.ndarray]:
    """Some classes of scikit-learn's digits under other names, and the flat features [N, 64]."""
    digits = load_digits()
    values = (8, 5, 9, 3)[: len(names)]
    keep = np.flatnonzero(np.isin(digits.target, values))[:480]
    label = np.array([values.index(target) for target in digits.target[keep]], np.int32)
    tints = np.array([[250, 250, 250], [250, 235, 200], [200, 235, 250], [225, 250, 210]])
    images = []
    for row, number in zip(keep, label, strict=True):
        gray = np.kron(digits.images[row] / 16, np.ones((scale, scale)))
        images.append((gray[..., None] * tints[number % len(tints)]).astype(np.uint8))
    table = pd.DataFrame({
        "id": [id_format.format(row=int(row), label=number) for row, number in zip(keep, label, strict=True)],
        "source": "digits",
        "class_name": [names[number] for number in label],
        "label": label,
        "split": np.array(["train", "train", "train", "val", "test"])[np.arange(len(keep)) % 5],
        "group": "",
        "sha256": "0" * 64,
        "width": np.int32(8 * scale),
        "height": np.int32(8 * scale),
        "phash": np.int64(0),
    })  # fmt: skip
    quarantine = pd.DataFrame(columns=["id", "reason", "detail"])
    return Dataset(table, tuple(names), quarantine, {"hidden file": 1}, ListReader(images)), digits.data[keep]


def write_run(
    run: Path,
    names: tuple[str, ...] = DIGITS,
    *,
    id_format: str = "digits/{row:04d}",
    scale: int = 1,
    quarantined: int = 0,
    splits: str = "all",
) -> Path:
    run.mkdir(parents=True)
    dataset, features = digits_dataset(names, id_format, scale)
    if splits == "val only":
        dataset.table["split"] = dataset.table["split"].replace("test", "train")
    table = dataset.table
    ids = table["id"].tolist()
    train, held_out = table["split"] == "train", table["split"] == ("test" if splits == "all" else "val")
    centroids = np.stack([features[train & (table["label"] == label)].mean(0) for label in range(len(names))])
    logits = -((features[held_out, None] - centroids) ** 2).sum(2) / 120
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = table.loc[held_out, "label"].to_numpy()
    predictions = metrics.predictions(table.loc[held_out, "id"], probabilities.astype(np.float32), labels, names, 5)
    audit = {
        "mode": "fix",
        "exact_duplicates": {"within": 1, "across": 1, "groups": [[ids[3], "gone/1"], ids[10:16]]},
        "near_duplicates": {"within": 0, "across": 1, "groups": [[ids[20], ids[21]]]},
        "groups_across_splits": [{"group": "photo <7>", "splits": {"train": 2, "test": 1}, "ids": ids[30:33]}],
        "label_conflicts": [
            {"ids": [ids[40], ids[41]], "classes": [names[0], names[1]], "splits": {"train": 2}, "reason": "exact duplicate"}
        ],
        "dropped": [{"id": "gone/1", "split": "train", "reason": "exact duplicate", "duplicate_of": ids[3]}],
        "counts": {"groups_across_splits": 1, "label_conflicts": 1, "dropped": 1},
        "ignored": {"hidden file": 3},
    }
    config = default_config()
    config.name, config.data.source, config.train.duration = "quickstart", "digits", "12 epochs"
    results = {
        "split": "test" if splits == "all" else "val",
        **metrics.compute(probabilities.astype(np.float32), labels, names),
        "class_names": list(names),
        "steps": 108,
        "train_seconds": 12.3,
        "params_sha256": "f" * 64,
        "params_total": 93_892,
        "params_trainable": 93_892,
        "best_epoch": 9.0,
        "best_metric": "val_loss",
        "best_value": 0.12,
        "notes": ["One copy of an evaluation image was dropped before training."]
        + ([] if splits == "all" else ["There is no test split; the score is on val."]),
    }
    reasons = ("truncated", "not_an_image", "empty")
    quarantine = [{"id": f"bad & worse/{i}.jpg", "reason": reasons[i % 3], "detail": "image file is <cut>"} for i in range(quarantined)]
    rng = np.random.default_rng(0)
    lines = []
    for step in range(1, 109):
        epoch, noise = step / 9, rng.normal(0, 0.04)
        lines.append(
            {
                "step": step,
                "epoch": epoch,
                "train_loss": 1.4 * np.exp(-epoch / 3) + 0.08 + abs(noise),
                "learning_rate": 1e-3 * (1 - step / 120),
            }
        )
        lines[-1]["train_top1"] = float(np.clip(1 - 0.7 * np.exp(-epoch / 2) + noise / 2, 0, 1))
        if step % 9 == 0:
            lines.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "val_loss": 1.4 * np.exp(-epoch / 3) + 0.1 + 0.004 * epoch,
                    "val_top1": 1 - 0.7 * np.exp(-epoch / 2) - 0.02,
                }
            )

    table.to_parquet(run / "dataset.parquet")
    predictions.to_csv(run / "predictions.csv", index=False)
    pd.DataFrame(quarantine, columns=["id", "reason", "detail"]).to_csv(run / "quarantine.csv", index=False)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text(to_json(config))
    environment = {
        "python": "3.11.2",
        "packages": {"jax": "0.10.2", "flax": "0.12.8"},
        "platform": "Linux",
        "cpu_count": 2,
        "devices": ["cpu:0"],
    }
    for name, value in (("audit", audit), ("results", results), ("environment", environment)):
        (run / f"{name}.json").write_text(json.dumps(value))
    changed = ids[4::5][:3] if splits == "all" else []
    counts = {"only_a": 2, "only_b": 4, "images_needed": 1200.0, "images": int(held_out.sum())}
    previous = {
        "run": f"before {names[0]}",
        "a": 0.875,
        "b": 0.896,
        "difference": 2 / 96,
        "difference_ci95": [-0.03, 0.07],
        "p": 0.69,
        "tie": True,
    }
    moved = {"images": 24, "before": 0.75, "after": 0.875, "low": -0.1, "high": 0.3}
    previous |= {**counts, "notes": [], "better": [{"class": names[0], **moved}], "worse": [{"class": names[1], **moved, "after": 0.7}]}
    (run / "previous.json").write_text(json.dumps(previous | {"mended": changed[:2], "broken": changed[2:]}))
    samples.save(run, dataset, predictions, audit, changed)
    shown = subset(dataset, np.flatnonzero(held_out))
    plane = (features[held_out, 20:22] / 16).clip(0, 1)
    points = shown.table[["id", "class_name", "split"]].assign(predicted=predictions["predicted"].to_numpy(), x=plane[:, 0], y=plane[:, 1])
    feature_map.save(run, shown, points, {"of": len(shown.table), "kept": 0.5}, Console(quiet=True))
    return run
