"""Photos a second and memory: `imgclf openimages download` beside img2dataset, on the same local server with 50 ms of latency.

The server is that of the tests, with the 66 real photos under many ids; an answer takes a round trip, and with --connect so does a new
connection. Both fetch with the same number of workers, ours verifying (decoding to the end, SHA-256, fsync, ledger). Speed counts from the
first request to the last byte; memory is the greatest sum of the process tree's (PSS).

    python experiments/benchmarks/openimages_download.py ../shared --peer PYTHON     # a Python that has img2dataset
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "openimages"))
from release_server import ReleaseServer

from imgclf.openimages.selection import Selection

PEER = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], processes_count=1, thread_count=int(sys.argv[3]), output_format="files",
             resize_mode="no", {mode}=True, retries=3, enable_wandb=False, number_sample_per_shard=100000)
"""


def serve(shared: Path, copies: int, latency: float, connect: bool, pipe) -> None:
    """The server, in a process of its own; answers "ready", then on any message (first request, last byte, whole answers)."""
    with ReleaseServer(shared, latency=latency) as server:
        server.connect_latency = latency if connect else 0.0
        bodies = list(server.photos.values())
        server.photos = {f"{number:016x}": bodies[number % len(bodies)] for number in range(copies)}
        pipe.send(server.port)
        while pipe.recv():
            done = [request for request in server.requests(".jpg") if request.whole]
            pipe.send((min(request.time for request in done), max(request.end for request in done), len(done)))
            server.log.clear()


def tree_memory(root: int) -> float:
    """MB that a process and its descendants hold; shared pages count once."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total / 1024


def measure(command: list[str], pipe) -> tuple[float, float, int]:
    """Photos a second, MB, photos."""
    most, over = 0.0, threading.Event()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
    )

    def watch() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    over.set()
    watcher.join()
    if status:
        sys.exit(f"{command} failed")
    time.sleep(0.2)
    pipe.send(True)
    first, last, photos = pipe.recv()
    return photos / (last - first), most, photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--peer", help="a Python with img2dataset")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--connect", action="store_true", help="a new connection takes a round trip, as on a real network")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    pipe, other = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=serve, args=(options.shared, options.photos, options.latency, options.connect, other), daemon=True
    )
    server.start()
    port = pipe.recv()
    mirror = f"http://127.0.0.1:{port}/mirror/"
    ids = [f"{number:016x}" for number in range(options.photos)]
    with tempfile.TemporaryDirectory() as temporary:
        folder, urls = Path(temporary) / "ours", Path(temporary) / "urls.txt"
        urls.write_text("".join(f"{mirror}train/{image_id}.jpg\n" for image_id in ids))
        text = dict.fromkeys(
            ("original_url", "landing_url", "licence", "author_url", "author", "title", "original_md5", "thumbnail_url"), ""
        )
        images = pd.DataFrame({"image_id": ids, "split": "train", **text, "original_size": 0, "rotation": 0.0})
        program = "from imgclf.cli import main; main()"
        own = ["download", str(folder), "--mirror-url", mirror, "--workers", str(options.workers), "--rate", "0"]
        ways = {"imgclf": [sys.executable, "-c", program, "openimages", *own]}
        for mode in ("skip_reencode", "disable_all_reencoding") if options.peer else ():
            script = Path(temporary) / f"{mode}.py"
            script.write_text(PEER.format(mode=mode))
            ways[f"img2dataset, {mode}"] = [options.peer, str(script), str(urls), str(Path(temporary) / "theirs"), str(options.workers)]
        results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
        for _ in range(options.pairs):
            for name, command in ways.items():
                shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(Path(temporary) / "theirs", ignore_errors=True)
                Selection(images[["image_id"]].assign(class_name="a"), images, (), {"base_url": mirror}).save(folder)
                results[name].append(measure(command, pipe))
        for name, runs in results.items():
            speeds = [run[0] for run in runs]
            ratio = statistics.median(ours[0] / run[0] for ours, run in zip(results["imgclf"], runs, strict=True))
            memory = statistics.median(run[1] for run in runs)
            share = statistics.median(run[1] for run in results["imgclf"]) / memory
            print(f"{name:36} {statistics.median(speeds):6.1f} photos/s ({min(speeds):.1f}–{max(speeds):.1f}), {memory:4.0f} MB: ", end="")
            print(f"imgclf is {ratio:.2f}x as fast, with {share:.2f} of the memory; {runs[0][2]} photos")
    pipe.send(False)


if __name__ == "__main__":
    main()
