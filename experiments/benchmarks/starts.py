"""How long commands take to start: helps, mistakes, and one picture; medians of CPU and wall time over several processes.

    python experiments/benchmarks/starts.py
    python experiments/benchmarks/starts.py --run RUN --picture PHOTO

The first form times `import imgclf`, the help of every command, and a mistake of each kind: a path, a field, a value, a config, an option.
With --run also `imgclf predict RUN PHOTO`, first with an empty cache of compiled programs, then from it; and the quick start: the seconds
until its first step is done, as metrics.jsonl says, and until the report of a run of one step is written. Modules are compiled to bytecode
before the first turn. Cost on 2 CPU cores: 3 minutes.
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

MISTAKES = {
    "a config that isn't there": ["train", "nowhere"],
    "a folder that isn't there": ["train", "folder:/nowhere"],
    "a table that isn't there": ["train", "csv:/nowhere.csv"],
    "an unknown field": ["train", "quickstart", "--set", "optimizer.nothing=1"],
    "a value that is no learning rate": ["train", "quickstart", "--set", "optimizer.learning_rate=-1"],
    "a run that isn't there": ["predict", "/nowhere", "a.jpg"],
    "a study that isn't there": ["study", "/nowhere.py"],
    "a bundle that isn't there": ["reproduce", "/nowhere"],
    "a pack that isn't there": ["data", "check", "/nowhere"],
}


def seconds(command: list[str], folder: str, code: int | None = 0, **environment: str) -> tuple[float, float]:
    """CPU and wall seconds of a process, its own children included; `code` is how it must end, None = anyhow."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code is not None and done.returncode != code:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def row(told: str, command: list[str], turns: int, folder: str, code: int | None = 0, **environment: str) -> None:
    """Prints the medians and ranges of several turns."""
    cpu, wall = zip(*(seconds(command, folder, code, **environment) for _ in range(turns)), strict=True)
    spread = f"{min(wall):.2f}–{max(wall):.2f}"
    print(f"| {told} | {statistics.median(cpu):.2f} | {statistics.median(wall):.2f} ({spread}) |", flush=True)


def first_step(command: list[str], folder: str, run: str, **environment: str) -> float:
    """Seconds by the clock from the start of a training's process until its first step is done and logged."""
    start = time.time()
    seconds([*command, "--workdir", run, "--set", "train.log_every=1 steps"], folder, **environment)
    with (Path(folder) / run / "metrics.jsonl").open(encoding="utf-8") as lines:
        return float(json.loads(next(lines))["time"]) - start


def commands() -> list[list[str]]:
    """The names of all commands, those of groups with their group's."""
    from imgclf.cli.commands import app

    groups = [
        [group.name, command.callback.__name__] for group in app.registered_groups for command in group.typer_instance.registered_commands
    ]
    return [[command.name or command.callback.__name__.replace("_", "-")] for command in app.registered_commands] + [
        [group, name.replace("_", "-")] for group, name in groups
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=lambda path: str(Path(path).resolve()), help="the folder of a finished run")
    parser.add_argument("--picture", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    imgclf = [sys.executable, "-c", "from imgclf.cli import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        seconds([*imgclf, "reproduce", "/nowhere"], folder, 2)
        print("| what | CPU s, median | wall s, median (range) |\n|---|---|---|")
        row("`import imgclf`", [sys.executable, "-c", "import imgclf"], arguments.turns, folder)
        row("`imgclf --help`", [*imgclf, "--help"], arguments.turns, folder)
        helps = [(*seconds([*imgclf, *name, "--help"], folder, None), " ".join(name)) for name in commands()]
        cpu, wall, slowest = max(helps)
        print(f"| `--help` of the {len(helps)} commands, once each: the slowest, {slowest} | {cpu:.2f} | {wall:.2f} |", flush=True)
        wrong = [(*seconds([*imgclf, *name, "--nothing"], folder, 2), " ".join(name)) for name in commands()]
        cpu, wall, slowest = max(wrong)
        print(f"| an option that none of them has, once each: the slowest, {slowest} | {cpu:.2f} | {wall:.2f} |", flush=True)
        for told, mistake in MISTAKES.items():
            row(f"{told}: `imgclf {' '.join(mistake)}`", [*imgclf, *mistake], arguments.turns, folder, 2)
        if arguments.run:
            predict = [*imgclf, "predict", arguments.run, arguments.picture, "--overwrite"]
            row("one picture, nothing compiled", predict, 1, folder, IMGCLF_CACHE=f"{folder}/cache")
            row("one picture, programs cached", predict, max(3, arguments.turns // 2), folder, IMGCLF_CACHE=f"{folder}/cache")
            for turn, told in enumerate(("nothing compiled", "programs cached", "programs cached")):
                step = [*imgclf, "train", "quickstart", "--set", "train.duration=1", "--workdir", f"run{turn}"]
                row(f"the quick start of one step, with its report, {told}", step, 1, folder, IMGCLF_CACHE=f"{folder}/steps")
            begun = [*imgclf, "train", "quickstart", "--set", "train.duration=2 steps"]
            turns = range(max(3, arguments.turns // 2))
            waits = [first_step(begun, folder, f"first{turn}", IMGCLF_CACHE=f"{folder}/steps") for turn in turns]
            spread = f"{min(waits):.2f}–{max(waits):.2f}"
            print(f"| the quick start until its first step is done, programs cached | – | {statistics.median(waits):.2f} ({spread}) |")


if __name__ == "__main__":
    main()
