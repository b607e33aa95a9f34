"""How long a training takes to its first batch, and how much memory, from ten thousand to a million photos: a table and a plot.

    python experiments/benchmarks/million.py PHOTOS FOLDER [--sizes 10000 100000 1200000] [--starts 2] [--plot FILE]
    python experiments/benchmarks/million.py PHOTOS FOLDER --keep                    # leaves the trees for other measurements

PHOTOS is a folder of some hundred photos; FOLDER gets a tree of each size (`million_tree.py`: hard links, classes of 80 images) and a
cache; both are removed at the end. Each start is a process of its own (`million_stages.py`) with `data.verify="background"`: the first one
lists the folder, the second finds the kept listing. The system's cache of names is warm, as the trees have just been made. Besides the
clock there is the processor's time, which tells more on a busy machine. Cost: a minute for a million names, and two for the starts.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import altair as alt
import million_tree
import pandas as pd
import vl_convert

HERE = Path(__file__).resolve().parent
PLOT = HERE.parent / "plots" / "million.svg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_200_000])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--plot", type=Path, default=PLOT)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in args.sizes:
        tree = args.folder / str(size)
        if not tree.exists():
            million_tree.make(args.photos, tree, size)
            time.sleep(3)  # the listing of a folder that was changed within two seconds before it is not trusted, and not kept
        with tempfile.TemporaryDirectory(dir=args.folder) as cache:
            for number in range(args.starts):
                rows.append({"start": number + 1, **start(tree, Path(cache), args.workers)})
                print(line(rows[-1]), flush=True)
        if not args.keep:
            shutil.rmtree(tree)
    args.plot.write_text(plot(rows), encoding="utf-8")
    print(f"Plot: {args.plot}")


def start(tree: Path, cache: Path, workers: int) -> dict[str, Any]:
    """The figures of one start in a process of its own."""
    command = [sys.executable, str(HERE / "million_stages.py"), str(tree), "--verify", "background", "--workers", str(workers)]
    done = subprocess.run(command, env=os.environ | {"IMGCLF_CACHE": str(cache)}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(row: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {row[name]:.2f} s" for name in ("listing", "splits", "audit") if name in row)
    workers = f"; workers' own memory {max(row['workers_mb']):,.0f} MB each" if row["workers_mb"] else ""
    return (
        f"{row['images']:>9,} images in {row['classes']:,} classes, start {row['start']}: first batch after {row['first batch']:.2f} s "
        f"({row['cpu']:.2f} s of processor time; {stages}); peak {row['peak_mb']:,.0f} MB, then {row['resident_mb']:,.0f} MB{workers}"
    )


def plot(rows: list[dict[str, Any]]) -> str:
    """Draws the processor's time for each image over the number of images, as SVG."""
    names = {1: "first start: the folder is listed", 2: "second start: the listing is kept"}
    frame = pd.DataFrame(
        [
            {"images": row["images"], "microseconds": 1e6 * row["cpu"] / row["images"], "start": names.get(row["start"], str(row["start"]))}
            for row in rows
        ]
    )
    scale = alt.Scale(type="log")
    horizontal = alt.X("images:Q", scale=scale, title="images", axis=alt.Axis(format="~s", tickCount=4))
    vertical = alt.Y("microseconds:Q", scale=scale, title="µs of processor time for each image, to the first batch")
    chart = alt.Chart(frame).mark_line(point=True).encode(x=horizontal, y=vertical, color=alt.Color("start:N", title=None))
    return vl_convert.vegalite_to_svg(chart.properties(width=420, height=260).to_json())


if __name__ == "__main__":
    main()
