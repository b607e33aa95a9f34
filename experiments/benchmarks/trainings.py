"""Whole trainings beside Keras and PyTorch: class folders of JPEGs → augmented → trained → evaluated → reported, by `imgclf train` itself.

    python experiments/benchmarks/trainings.py cnn ../shared/data/doraemon_walle --torch TORCH --tf TF --rounds 3
    python experiments/benchmarks/trainings.py mobilenet_v2 ../shared/data/doraemon_walle --torch TORCH --tf TF --epochs 2 --clock cpu
    python experiments/benchmarks/trainings.py probe ../shared/data/doraemon_walle --torch TORCH --tf TF

The folder has train/, valid/ and test/, each of class folders; scores are of valid/, of our probe by its folds. All sides see the same
photos, kinds of augmentation, batch, epochs and optimizer; the peers are trainings_peers.py. Nothing of ours is cut out: audit,
checkpoints, scores with intervals, pictures and report. Sides take turns in processes of their own. "In all" is the whole process, from the
command to its end, imports and compilation included; "epoch" is the mean of the epochs after the first, its evaluation included, by the
wall's clock alone. With --clock cpu "in all" counts seconds of CPU of a process and its children, for a machine that others keep busy. The
scores are written beside, so that nobody is faster by learning less. --keep FILE adds the figures to those of earlier sittings.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEERS = Path(__file__).with_name("trainings_peers.py")
CONFIGS = {
    "cnn": ["openimages_cnn:{data}", "--set", "train.early_stopping.patience=0"],
    "mobilenet_v2": [
        *("sports_mobilenet:{data},weights=none", "--set", "train.method=fit", "--set", "loader.batch_size=32"),
        *("--set", "augment.flip=0.5", "--set", "optimizer.learning_rate=1e-3"),
    ],
    "probe": ["doraemon_resnet50:{data},weights=none", "--set", "data.split.method=auto"],
}


def timed(command: list[str], clock: str) -> tuple[float, str]:
    """Runs a command; returns its seconds, on the wall or of CPU with its children's, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (spent if clock == "cpu" else wall), done.stdout


def ours(work: str, data: Path, epochs: int, clock: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        config = [word.format(data=data) for word in CONFIGS[work]]
        duration = [] if work == "probe" else ["--set", f"train.duration={epochs} epochs", "--set", "train.eval_every=1 epochs"]
        program = "from imgclf.cli import main; main()"
        seconds, _ = timed([sys.executable, "-c", program, "train", *config, "--workdir", str(run), *duration], clock)
        if work == "probe":  # has no epochs
            return {"in all": seconds, "score": json.loads((run / "results.json").read_text(encoding="utf-8"))["top1"]}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        scored = [line for line in lines if "val_top1" in line]
        figures = {"in all": seconds, "score": scored[-1]["val_top1"]}
        ends = [line["time"] for line in scored]
        if len(ends) > 1:
            figures["epoch"] = (ends[-1] - ends[0]) / (len(ends) - 1)
        return figures


def peer(python: str, library: str, work: str, data: Path, epochs: int, clock: str) -> dict[str, float]:
    seconds, printed = timed([python, str(PEERS), library, work, str(data), "--epochs", str(epochs)], clock)
    return {"in all": seconds, **json.loads(printed.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=CONFIGS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch, torchvision and scikit-learn")
    parser.add_argument("--tf", metavar="PYTHON", help="a Python that has tensorflow, keras, scipy and scikit-learn")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--keep", type=Path, help="a file of JSON lines to which the figures of each turn are added")
    arguments = parser.parse_args()
    what = arguments.work, arguments.data, arguments.epochs, arguments.clock
    sides = {"imgclf": lambda: ours(*what)}
    if arguments.tf:
        sides |= {f"keras {way}": lambda way=way: peer(arguments.tf, f"keras-{way}", *what) for way in ("generator", "dataset")}
    if arguments.torch:
        sides["torch"] = lambda: peer(arguments.torch, "torch", *what)
    rounds = [json.loads(line) for line in arguments.keep.read_text().splitlines()] if arguments.keep and arguments.keep.exists() else []
    for _ in range(arguments.rounds):
        rounds.append({name: side() for name, side in sides.items()})
        if arguments.keep:
            arguments.keep.write_text("".join(json.dumps(one) + "\n" for one in rounds), encoding="utf-8")
        told = (f"{name} " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()) for name, figures in rounds[-1].items())
        print(f"round {len(rounds)} (load {os.getloadavg()[0]:.0f}): " + "; ".join(told), flush=True)
    for name in [name for name in rounds[0] if name != "imgclf"]:
        for key in ("in all", "epoch"):
            ratios = [one[name][key] / one["imgclf"][key] for one in rounds if key in one[name] and key in one["imgclf"]]
            if ratios:
                print(f"{name}, {key}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {len(ratios)} rounds")


if __name__ == "__main__":
    main()
