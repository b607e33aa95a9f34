"""Hours of training, packing and predicting with kills, full disks and outages: does all end with the same bits, and does nothing grow?

    python experiments/benchmarks/soak.py PHOTOS FOLDER --hours 3 [--every 120] [--seed 0]

PHOTOS is a folder of classes, of which some photos are copied. FOLDER keeps the state, so that the same command goes on where SIGTERM,
Ctrl-C or a kill has stopped it; the hours are those of work, pauses left out. A first round is left in peace; each later one trains, packs
and predicts anew, on this disk and on a loopback server of S3's protocol, until the hours are over. Every few minutes, at moments that the
seed draws, something happens to the command at work, and the command is given again until it ends well:

- SIGKILL to all of its processes;
- its disk is full, until it has given up (a small tmpfs holds runs and packs, which needs root; else this is left out, and that is said);
- the server answers 503 to everything for 5 to 90 seconds, where commands try for 60; besides, a request in six fails in some other way.

It compares with the first round: hashes of parameters, results, predictions and packs to the bit; memory of the processes; files and bytes
of the cache, run and pack; unfinished files; how often each file is fetched. `record.json` in FOLDER has it all, and what was found amiss;
the exit code is 1 where anything was. Cost: the hours, at one or two cores; a round takes some two minutes on a quiet machine.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from soak_places import copy_photos, served, small_disk

REPOSITORY = Path(__file__).resolve().parents[2]

FIELDS = {
    "data.image_size": "64",
    "data.scenes": "off",
    "data.in_memory_mb": "0",
    "loader.batch_size": "16",
    "loader.eval_batch_size": "32",
    "eval.explain": "0",
    "model.cnn.widths": "(8,16)",
    "train.method": "fit",
    "train.duration": "120 steps",
    "train.checkpoint_every": "10 steps",
    "train.eval_every": "40 steps",
    "train.log_every": "10 steps",
}
KINDS = ("kill", "kill", "full", "outage")  # what happens, of which an outage befalls commands at the server, a full disk the others
PATIENCE = 12  # after so many disturbances of one command it is left in peace
GIVES_UP = 60  # seconds for which a command tries to reach the server
UNFINISHED = re.compile(r"\.part$|\.old$|\.tmp|orbax-checkpoint-tmp|^ledger$")
GROWTH = 0.1  # over all rounds; more is amiss
ROUNDS_TO_TELL = 6
PASSING = {"train_seconds"}  # of results.json: what isn't the same in each run


@dataclasses.dataclass
class Stretch:
    """A command from its start to its end, whatever ended it: its exit code, seconds, peak and growth of its memory, and what befell it."""

    code: int
    seconds: float
    peak_mb: float
    growth: float | None  # of resident memory from the middle to the end; None for stretches under 30 seconds
    befell: str


class Soak:
    """Rounds of commands, and what is kept of them."""

    def __init__(self, arguments: argparse.Namespace):
        self.folder: Path = arguments.folder.resolve()
        self.every, self.seed, self.seconds_wanted = arguments.every, arguments.seed, 3600 * arguments.hours
        self.disk, self.cache, self.temporary = self.folder / "disk", self.folder / "cache", self.folder / "tmp"
        self.kept = self.folder / "state.json"
        self.state: dict[str, Any] = {"seconds": 0.0, "rounds": [], "amiss": [], "starts": 0}
        if self.kept.exists():
            self.state = json.loads(self.kept.read_text())
        self.photos = self.folder / "photos"
        if not self.photos.exists():
            copy_photos(arguments.photos, self.photos)
        for folder in (self.cache, self.temporary, self.disk):
            folder.mkdir(exist_ok=True)
        self.child: subprocess.Popen | None = None
        self.until_next = 0.0

    def run(self) -> None:
        """Makes rounds until the hours are over."""
        self.state["starts"] += 1
        self._save()
        shutil.rmtree(self.temporary)
        self.temporary.mkdir()
        with served(self.photos) as (self.proxy, self.store), contextlib.ExitStack() as mounted:
            self.small = small_disk(self.disk, mounted)
            if "reference" in self.state:
                self.store.fill("runs/kept", self.folder / "kept")
            while "reference" not in self.state or self.state["seconds"] < self.seconds_wanted or len(self.state["rounds"]) < 1:
                self._round()

    def _round(self) -> None:
        number = len(self.state["rounds"]) + ("reference" in self.state)
        self.chance = random.Random(f"{self.seed} {number}")
        self.until_next = self.chance.uniform(0.2, 1.8) * self.every if number else float("inf")
        self._clear()
        self.proxy.gets.clear()
        done: dict[str, list[Stretch]] = {}
        at_url = "kept" if not number else "now"
        for name, command in self._commands(at_url).items():
            done[name] = self._until_well(name, command, at_server="s3" in name)
        found = self._found(at_url)
        entry = {
            "found": found,
            "sizes": self._sizes(at_url),
            "fetched": self._fetched(done) if number else [],
            "commands": {name: [dataclasses.asdict(one) for one in stretches] for name, stretches in done.items()},
        }
        if number:
            self._compare(number, entry)
            self.state["rounds"].append(entry)
        else:
            self.state["reference"] = entry
            self.store.keep("runs/kept", self.folder / "kept")
        self._save()
        befell = Counter(one.befell for stretches in done.values() for one in stretches if one.befell)
        told = ", ".join(f"{count} x {what}" for what, count in befell.items()) or "in peace"
        print(f"round {number}: {told}; {self.state['seconds'] / 3600:.2f} h; amiss so far: {len(self.state['amiss'])}", flush=True)

    def _commands(self, at_url: str) -> dict[str, list[str]]:
        fields = [f"--set={name}={value}" for name, value in FIELDS.items()]
        here, there = f"folder:{self.photos}", "folder:s3://bucket/photos"
        pack = ["--size", "64", "--workers", "1", *fields]
        return {
            "train": ["train", here, "--workdir", f"{self.disk}/run", *fields],
            "pack": ["data", "pack", here, "--out", f"{self.disk}/pack", *pack],
            "predict": ["predict", f"{self.disk}/run", str(self.photos), "--out", f"{self.disk}/predictions.csv"],
            "train on s3": ["train", there, "--workdir", f"s3://bucket/runs/{at_url}", *fields],
            "pack to s3": ["data", "pack", here, "--out", "s3://bucket/pack", *pack],
            "predict from s3": ["predict", "s3://bucket/runs/kept", "s3://bucket/photos", "--out", f"{self.folder}/from-s3.csv"],
        }

    def _until_well(self, name: str, command: list[str], at_server: bool) -> list[Stretch]:
        stretches: list[Stretch] = []
        self.proxy.always = ""
        while not stretches or stretches[-1].code:
            if at_server and self.until_next != float("inf"):
                self.proxy.plan = self.chance.choices(["", "503", "reset", "short"], [15, 1, 1, 1], k=400)
            stretches.append(self._stretch(name, command, at_server, calm=len(stretches) >= PATIENCE))
            self.proxy.plan = ()
        return stretches

    def _stretch(self, name: str, command: list[str], at_server: bool, calm: bool) -> Stretch:
        """Gives a command once, with at most one disturbance."""
        log, samples, befell = self.folder / "said.log", list[tuple[float, float]](), ""
        environment = os.environ | {"IMGCLF_CACHE": str(self.cache), "TMPDIR": str(self.temporary), "IMGCLF_REMOTE_SECONDS": str(GIVES_UP)}
        with log.open("w") as said:
            self.child = subprocess.Popen(
                [sys.executable, "-c", "from imgclf.cli import main; main()", *command],
                **{"env": environment, "cwd": REPOSITORY, "stdin": subprocess.DEVNULL, "stdout": said, "stderr": said},
                **{"start_new_session": True, "preexec_fn": dies_with_this_process},
            )
        begun = last = time.monotonic()
        peak, healed = 0.0, float("inf")
        while self.child.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            self.state["seconds"] += now - last
            self.until_next -= now - last
            last = now
            resident, highest = memory(self.child.pid)
            peak = max(peak, highest)
            samples.append((now - begun, resident))
            if self.until_next <= 0 and not befell and not calm:
                befell, length = self._disturb(at_server)
                healed = now + length
            if now > healed:
                self._heal()
                healed = float("inf")
        self._heal()
        if befell or calm:
            self.until_next = self.chance.uniform(0.2, 1.8) * self.every if self.until_next <= 0 else self.until_next
        code, text = self.child.returncode, log.read_text(errors="replace")
        allowed = {0} | ({-9} if befell == "kill" else {2} if befell or at_server else set())
        if code not in allowed or "Traceback" in text:
            self._amiss(f"{name} ended with {code} after {befell or 'nothing'}: {text[-1500:]}")
            if code and code not in allowed and len(self.state["amiss"]) > 30:
                raise SystemExit("Too much is amiss.")
        self._save()
        return Stretch(code, last - begun, peak, growth(samples), befell)

    def _disturb(self, at_server: bool) -> tuple[str, float]:
        """Does something to the command at work; says what, and for how many seconds."""
        assert self.child is not None
        kind = self.chance.choice(KINDS)
        if kind == "outage" and at_server:
            self.proxy.always = "503"
            return kind, self.chance.uniform(5, 1.5 * GIVES_UP)
        if kind == "full" and not at_server and self.small:
            with contextlib.suppress(OSError), (self.disk / "ballast").open("wb", buffering=0) as ballast:
                while ballast.write(bytes(1 << 16)):
                    pass
            return kind, self.chance.uniform(10, 40)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        return "kill", 0

    def _heal(self) -> None:
        self.proxy.always = ""
        (self.disk / "ballast").unlink(missing_ok=True)

    def _found(self, at_url: str) -> dict[str, str]:
        """Hashes of all that a round has made."""
        found = {}
        for name, data in (
            ("results", (self.disk / "run/results.json").read_bytes()),
            ("results on s3", self.store.read(f"runs/{at_url}/results.json")),
        ):
            results = json.loads(data)
            found[f"parameters of {name}"] = results["params_sha256"]
            found[name] = digest(json.dumps({key: value for key, value in results.items() if key not in PASSING}).encode())
        for path in (self.disk / "run/predictions.csv", self.disk / "predictions.csv", self.folder / "from-s3.csv"):
            found[path.relative_to(self.folder).as_posix()] = digest(path.read_bytes())
        for path in sorted((self.disk / "pack").rglob("*")):
            found[path.relative_to(self.disk).as_posix()] = digest(path.read_bytes())
        for key in self.store.keys("pack/"):
            found[f"s3 {key}"] = digest(self.store.read(key))
        return found

    def _sizes(self, at_url: str) -> dict[str, Any]:
        """Files and bytes of each place, and what is unfinished in it."""
        places = {name: listed(path) for name, path in (("cache", self.cache), ("run", self.disk / "run"), ("pack", self.disk / "pack"))}
        places["temporary"] = listed(self.temporary)
        places["predictions"] = {path.name: path.stat().st_size for path in self.disk.iterdir() if path.is_file()}
        places["run on s3"] = {key: 0 for key in self.store.keys(f"runs/{at_url}/")}
        unfinished = [f"{place}: {name}" for place, names in places.items() for name in names if is_unfinished(name)]
        return {name: [len(there), sum(there.values())] for name, there in places.items()} | {"unfinished": unfinished}

    def _fetched(self, done: dict[str, list[Stretch]]) -> list[str]:
        """Photos, and files of the run at a URL, that the prediction has fetched more often than it was given, with that number."""
        times = len(done["predict from s3"])
        return [f"{path}: {count}" for path, count in self.proxy.gets.items() if path.startswith("/bucket/runs/kept/") and count > times]

    def _compare(self, number: int, entry: dict[str, Any]) -> None:
        expected = self.state["reference"]["found"]
        for name in sorted(expected.keys() | entry["found"].keys()):
            if entry["found"].get(name) != expected.get(name):
                self._amiss(f"round {number}: {name} is not that of the first round")
        for what in entry["sizes"]["unfinished"]:
            self._amiss(f"round {number}: unfinished: {what}")
        for what in entry["fetched"]:
            self._amiss(f"round {number}: fetched again: {what}")

    def _clear(self) -> None:
        for name in ("run", "pack"):
            shutil.rmtree(self.disk / name, ignore_errors=True)
        (self.disk / "ballast").unlink(missing_ok=True)
        for path in (*self.disk.glob("predictions.csv*"), *self.folder.glob("from-s3.csv*")):
            path.unlink()
        for prefix in ("runs/now/", "pack/"):
            self.store.remove(prefix)

    def _amiss(self, what: str) -> None:
        if what not in self.state["amiss"]:
            self.state["amiss"].append(what)
            print(f"AMISS: {what}", flush=True)

    def _save(self) -> None:
        aside = self.kept.with_suffix(".part")
        aside.write_text(json.dumps(self.state))
        aside.replace(self.kept)
        (self.folder / "record.json").write_text(json.dumps(summary(self.state), indent=2) + "\n")

    def stop(self) -> None:
        """Ends the command at work."""
        if self.child is not None and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)


def summary(state: dict[str, Any]) -> dict[str, Any]:
    """What the record says: hours, rounds, what happened, memory and folders early and late, and what was amiss."""
    rounds = state["rounds"]
    stretches = [one for entry in rounds for each in entry["commands"].values() for one in each]
    third = max(1, len(rounds) // 3)
    memory_of, folders = {}, {}
    if rounds:
        for name in rounds[0]["commands"]:
            peaks = [max(one["peak_mb"] for one in entry["commands"][name]) for entry in rounds]
            memory_of[name] = {
                "early MB": statistics.median(peaks[:third]),
                "late MB": statistics.median(peaks[-third:]),
                "most MB": max(peaks),
            }
        for name in ("cache", "temporary", "run", "pack"):
            folders[name] = {"files, bytes in round 1": rounds[0]["sizes"][name], "in the last": rounds[-1]["sizes"][name]}
    within = [one["growth"] for one in stretches if one["growth"] is not None]
    return {
        "hours": round(state["seconds"] / 3600, 3),
        "rounds": len(rounds),
        "starts of this script": state["starts"],
        "befell": Counter(one["befell"] for one in stretches if one["befell"]),
        "commands given": len(stretches),
        "peak memory": memory_of,
        "memory within a command, second half of it": f"{statistics.median(within):+.1%} in the median of {len(within)}"
        if within
        else "too short",
        "folders": folders,
        "amiss": [*state["amiss"], *grown(memory_of, folders, len(rounds))],
    }


def grown(memory_of: dict[str, Any], folders: dict[str, Any], rounds: int) -> list[str]:
    """What has grown over the rounds, where there were enough of them to tell."""
    if rounds < ROUNDS_TO_TELL:
        return []
    found = [
        f"memory of {name}: {peaks['early MB']:.0f} MB early, {peaks['late MB']:.0f} MB late"
        for name, peaks in memory_of.items()
        if peaks["late MB"] > (1 + GROWTH) * peaks["early MB"]
    ]
    for name, (before, after) in ((name, tuple(sizes.values())) for name, sizes in folders.items()):
        if any(late > (1 + GROWTH) * max(early, 1) for early, late in zip(before, after, strict=True)):
            found.append(f"{name}: {before[0]} files of {before[1]:,} bytes after round 1, {after[0]} of {after[1]:,} after the last")
    return found


def memory(pid: int) -> tuple[float, float]:
    """Resident and highest resident memory of a process, MB; 0 for one that has ended."""
    with contextlib.suppress(OSError, AttributeError):
        text = Path(f"/proc/{pid}/status").read_text()
        resident, highest = (int(re.search(rf"{name}:\s+(\d+)", text).group(1)) / 1024 for name in ("VmRSS", "VmHWM"))
        return resident, highest
    return 0.0, 0.0


def growth(samples: list[tuple[float, float]]) -> float | None:
    """How much memory grows in the second half of a command: the last tenth of it over what is at its middle, minus 1."""
    there = [resident for _, resident in samples if resident]
    if not there or samples[-1][0] < 30:
        return None
    part = max(1, len(there) // 10)
    middle = len(there) // 2
    return statistics.median(there[-part:]) / statistics.median(there[middle : middle + part]) - 1


def listed(folder: Path) -> dict[str, int]:
    """Name → bytes of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def is_unfinished(name: str) -> bool:
    return any(UNFINISHED.search(part) for part in name.split("/"))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dies_with_this_process() -> None:
    """Asks Linux to kill the command when this script is gone, however that came about."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--every", type=float, default=120.0, metavar="SECONDS", help="between disturbances, in the mean")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with (arguments.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"Another soak is at work in {arguments.folder}.")
        begin(arguments)


def begin(arguments: argparse.Namespace) -> None:
    """Goes on until the hours are over, prints the summary, and ends with the exit code."""
    soak = Soak(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped; the same command goes on."))
    try:
        soak.run()
    finally:
        soak.stop()
    print(json.dumps(summary(soak.state), indent=2))
    sys.exit(1 if summary(soak.state)["amiss"] else 0)


if __name__ == "__main__":
    main()
