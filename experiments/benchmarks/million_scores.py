"""Scores 115,474 images of 14,951 classes a batch at a time: the time and memory of the metrics, the predictions and the report.

    python experiments/benchmarks/million_scores.py FOLDER [--images 115474] [--classes 14951] [--batch 256]

The logits are made up, as it is the scores that are measured and not a network: noise, and a bonus for the true class. FOLDER gets
results.json, predictions.csv and report.html of such a run. All logits together would take 6.9 GB.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from imgclf import files
from imgclf.config import default_config
from imgclf.data.table import Dataset
from imgclf.evaluation import results as results_lib
from imgclf.reporting import report
from imgclf.training.trained_model import TrainedModel, TrainProgress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=115_474)
    parser.add_argument("--classes", type=int, default=14_951)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    dataset = table(args.images, args.classes)
    labels = dataset.table["label"].to_numpy()
    noise = 2 * np.random.default_rng(0).standard_normal((args.batch, args.classes), np.float32)

    def blocks_of(split: str, only: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows = np.flatnonzero(dataset.table["split"] == split) if only is None else only
        for first in range(0, len(rows), args.batch):
            block = rows[first : first + args.batch]
            logits = np.roll(noise[: len(block)], first, axis=1)
            logits[np.arange(len(block)), labels[block]] += 8
            yield block, logits

    def logits_of(split: str) -> tuple[np.ndarray, np.ndarray]:
        raise MemoryError(f"the logits of {split} were asked for together")

    progress = TrainProgress(best_value=1.0, kept="best")
    trained = TrainedModel({}, {}, {"params_sha256": ""}, progress, 100, logits_of, blocks_of=blocks_of)
    print(f"before: {peak():,.0f} MB", flush=True)
    start, cpu = time.perf_counter(), time.process_time()
    found, predictions = results_lib.score(default_config(), dataset, trained, {"dropped": [], "in_training": {}})
    print(
        f"scores: {time.perf_counter() - start:.0f} s ({time.process_time() - cpu:.0f} s of processor time), peak {peak():,.0f} MB",
        flush=True,
    )
    files.write_json(args.folder / "results.json", found)
    predictions.to_csv(args.folder / "predictions.csv", index=False)
    dataset.table.to_parquet(args.folder / "dataset.parquet")
    start = time.perf_counter()
    page = report.write_report(args.folder)
    print(f"report: {time.perf_counter() - start:.0f} s, {page.stat().st_size / 1e6:.2f} MB, peak {peak():,.0f} MB")
    print(
        f"top-1 {found['top1']:.4f}, top-5 {found['top5']:.4f}, temperature {found['temperature']} of {found['calibration']['n']:,} images"
    )


def table(images: int, classes: int) -> Dataset:
    """The test images, and a tenth as many of val; every class has some in training."""
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "val", "test"], [classes, images // 10, images])
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, len(split) - classes)]).astype(np.int32)
    names = tuple(f"landmark {label:05d}" for label in range(classes))
    columns = {"class_name": np.array(names, object)[labels], "label": labels, "split": split, "group": ""}
    ids = [f"{row:07d}.jpg" for row in range(len(split))]
    return Dataset(pd.DataFrame({"id": ids, **columns}), names, pd.DataFrame(columns=["id", "reason", "detail"]), {}, None)


def peak() -> float:
    """Megabytes of this process that were in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
