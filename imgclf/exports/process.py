"""Runs an exported model in a process of its own, which can't import imgclf, as a user's program without it."""

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from imgclf.errors import UserError
from imgclf.exports.choices import Options
from imgclf.exports.formats import Answers
from imgclf.exports.gate import BATCHES

_TRIES = 5  # timings of a batch; the least of them is what the machine can do

# What surrounds the part of each format: `load(folder)` returns a function from uint8 [B,H,W,3] to a dict of float32 arrays.
_PROGRAM = """
import sys, time
start = time.perf_counter()
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not to be had in this process")
sys.meta_path.insert(0, Refused())
import json
import numpy as np
LOAD
folder, work = sys.argv[1:]
run = load(folder)
images = np.load(work + "/images.npy")
run(images[:1])
cold = time.perf_counter() - start
found, times = {}, {}
for batch in BATCHES:
    whole = np.concatenate([images] * -(-batch // len(images)))[:max(batch, len(images))]
    starts = range(0, len(whole), batch)
    parts = [run(whole[at : at + batch] if len(whole) >= at + batch else whole[-batch:]) for at in starts]
    last = len(whole) - (len(starts) - 1) * batch
    parts[-1] = {name: value[-last:] for name, value in parts[-1].items()}
    for name in parts[0]:
        found[f"{batch}/{name}"] = np.concatenate([part[name] for part in parts])[: len(images)].astype(np.float32)
for batch in (1, 16):
    shown = np.concatenate([images] * -(-batch // len(images)))[:batch]
    run(shown)
    tries = []
    for _ in range(TRIES):
        began = time.perf_counter()
        run(shown)
        tries.append(time.perf_counter() - began)
    times[batch] = 1000 * min(tries)
assert not set(REFUSED) & set(sys.modules)
np.savez(work + "/found.npz", **found)
json.dump({"cold_start_s": cold, "ms": times}, open(work + "/times.json", "w"))
"""


def answers(folder: Path, images: np.ndarray, load: str, refused: tuple[str, ...], options: Options) -> Answers:
    """Runs the model of an export on images.

    Args:
      folder: of the export.
      images: uint8 [N,H,W,3], N of 1 or more.
      load: Python code that defines `load(folder)`, which returns a function from uint8 [B,H,W,3] to a dict of float32 arrays.
      refused: packages that the process must do without, such as "imgclf" and "jax".
      options: which interpreter it is.

    Raises:
      UserError: if the model can't be run; with the last line of what the process said.
    """
    program = (
        _PROGRAM.replace("REFUSED", repr(refused)).replace("BATCHES", repr(BATCHES)).replace("TRIES", str(_TRIES)).replace("LOAD", load)
    )
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgclf-export-")))
        np.save(work / "images.npy", images)
        command = [options.python or sys.executable, "-I", "-c", program, str(folder), str(work)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"The export can't be run, and was not kept: {said}")
        with np.load(work / "found.npz") as found:
            outputs: dict[int, dict[str, np.ndarray]] = {batch: {} for batch in BATCHES}
            for key in found.files:
                batch, name = key.split("/")
                outputs[int(batch)][name] = found[key]
        times = json.loads((work / "times.json").read_text())
    return Answers(outputs, times["cold_start_s"], {int(batch): ms for batch, ms in times["ms"].items()})
