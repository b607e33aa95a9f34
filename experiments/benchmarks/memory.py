"""The most memory that each command takes: resident, of its process and all that it starts, and of what grows with the data.

    python experiments/benchmarks/memory.py ../shared/data/doraemon_walle
    python experiments/benchmarks/memory.py ../shared/data/doraemon_walle --only predict "data pack"
    python experiments/benchmarks/memory.py ../shared/data/cifar10_test1000 --rows 100000 --only explore audit "predict rows"
    python experiments/benchmarks/memory.py DATA --peer "PYTHON experiments/benchmarks/trainings_peers.py torch cnn DATA --epochs 1"

    python experiments/benchmarks/memory.py DATA --weights ../shared/weights/mobilenet_v2_1.0_224.keras.h5 --only create label-errors

DATA has class folders, or train/, valid/ and test/ of such. Every command is a real one in a process of its own, on a classifier that is
trained first (the tutorials' CNN, an epoch). Resident sets of the tree are added up 20 times a second, so that pages which processes
share count for each of them: an upper limit. "explore" writes the page of --rows photos, "predict rows" classifies as many, both hard
links of DATA's photos; "audit" compares as many random hashes. Cost on 2 CPU cores: 2 minutes of CPU, and with a million rows half an
hour more.
"""

import argparse
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

IMGCLF = [sys.executable, "-c", "from imgclf.cli import main; main()"]
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
AUDIT = """
import sys, numpy as np
from imgclf.data.audit import near_pairs
near_pairs(np.unique(np.random.default_rng(0).integers(0, 2**64, int(sys.argv[1]), dtype=np.uint64)), 6)
"""
EXPLORE = "import sys, imgclf; imgclf.load_images(sys.argv[1]).explore(sys.argv[2], verbose=False)"


def resident(root: int) -> int:
    """Bytes of resident memory of a process and all its descendants, by Linux's /proc."""
    parents, sizes = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(folder.name)], sizes[int(folder.name)] = int(fields[1]), int(fields[21]) * PAGE
    total, found = 0, [root]
    while found:
        process = found.pop()
        total += sizes.get(process, 0)
        found += [child for child, parent in parents.items() if parent == process]
    return total


def measure(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns the most GB that it held, and its seconds by the clock."""
    start, most, ended = time.perf_counter(), 0, threading.Event()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        waiter = threading.Thread(target=lambda: (process.wait(), ended.set()))
        waiter.start()
        while not ended.wait(0.05):
            most = max(most, resident(process.pid))
        waiter.join()
        if process.returncode:
            said.seek(0)
            sys.exit(f"{shlex.join(command)} ended with {process.returncode}:\n{said.read()[-3000:]}")
    return most / 1e9, time.perf_counter() - start


def linked(photos: list[Path], rows: int, folder: Path) -> Path:
    """Class folders of so many hard links of photos, or copies where links can't be."""
    for number, photo in enumerate(itertools.islice(itertools.cycle(photos), rows)):
        link = folder / photo.parent.name / f"{number:07d}{photo.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(photo, link)
        except OSError:
            link.write_bytes(photo.read_bytes())
    return folder


def commands(data: Path, photos: list[Path], rows: int, weights: Path | None, folder: Path) -> dict[str, list[str]]:
    """What is measured, in order: the first leaves the classifier that the others take."""
    run, other, some = str(folder / "run"), str(folder / "other"), [str(photo) for photo in photos[:8]]
    cnn = ["--set", "model.name=cnn", "--set", "data.image_size=(64, 64)", "--set", "train.duration=1 epochs"]
    ours = {
        "train": ["train", f"folder:{data}", "--workdir", run, *cnn],
        "train, another seed": ["train", f"folder:{data}", "--workdir", other, *cnn, "--set", "seed=1"],
        "evaluate": ["evaluate", run],
        "predict": ["predict", run, str(data), "--out", str(folder / "predictions.csv")],
        "explain": ["explain", run, *some, "--out", str(folder / "explain.html")],
        "map": ["map", run, "--out", str(folder / "map.html")],
        "compare": ["compare", run, other, "--out", str(folder / "compare.html")],
        "robustness": ["robustness", run, "--out", str(folder / "robustness")],
        "export": ["export", run, "--out", str(folder / "export")],
        "card": ["card", run],
        "data pack": ["data", "pack", f"folder:{data}", "--out", str(folder / "packed")],
        "data check": ["data", "check", str(folder / "packed")],
        "lr-find": ["lr-find", f"folder:{data}", *cnn[:4], "--steps", "20", "--out", str(folder / "lr-find")],
    }
    if weights is not None:
        published = f"path:{weights.resolve()}"
        probe = ["--set", f"model.weights={published}", "--set", "train.method=probe"]
        ours["create"] = ["create", str(data), "--weights", published, "--workdir", str(folder / "created")]
        ours["label-errors"] = ["label-errors", f"finetune:{data}", *probe, "--out", str(folder / "label-errors")]
    listed = {name: [*IMGCLF, *words] for name, words in ours.items()}
    many = str(folder / "many")
    listed["audit"] = [sys.executable, "-c", AUDIT, str(rows)]
    listed["explore"] = [sys.executable, "-c", EXPLORE, many, str(folder / "explore.html")]
    listed["predict rows"] = [*IMGCLF, "predict", run, many, "--out", str(folder / "many.parquet")]
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=0, help="photos and hashes of what grows with the data; 0: leave it out")
    parser.add_argument("--weights", type=Path, help="a file of published weights: `create` and `label-errors` are measured, too")
    parser.add_argument("--only", nargs="+", default=[], help="these commands; the classifier is trained all the same")
    parser.add_argument("--peer", action="append", default=[], help="a command to measure likewise")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.data.resolve().rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        grows = ("audit", "explore", "predict rows")
        listed = commands(arguments.data, photos, arguments.rows, arguments.weights, folder)
        asked = [name for name in listed if name in (arguments.only or (listed if arguments.rows else set(listed) - set(grows)))]
        if {"explore", "predict rows"} & set(asked):
            linked(photos, arguments.rows, folder / "many")
        for name in dict.fromkeys(["train", *asked]):
            print("| {} | {:.2f} GB | {:.0f} s |".format(name, *measure(listed[name])), flush=True)
        for peer in arguments.peer:
            print("| {} | {:.2f} GB | {:.0f} s |".format(peer, *measure(shlex.split(peer))), flush=True)


if __name__ == "__main__":
    main()
