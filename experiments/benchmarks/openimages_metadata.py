"""Open Images' train boxes at full size, filtered to two classes: imgclf beside `pandas.read_csv` of the whole file.

Makes a CSV of 14,610,229 rows, 2.26 GB, with the 21 columns of V6 and frequencies that fall as the real excerpt's do; then, each in a
process of its own and in turn: pandas; `tables.scan` (the first query); `tables.convert` (once, after the first query is answered);
`tables.query` (every later query). Time and peak memory are the whole process's, its imports included. All must find the same rows.

    python experiments/benchmarks/openimages_metadata.py ../shared --rounds 3
    … --peer "PYTHON -c …"      # another program that prints a number of rows, with {csv} for the file
"""

import argparse
import collections
import csv
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from imgclf.openimages import releases

CLICKS = [f"XClick{number}{axis}" for axis in "XY" for number in (1, 2, 3, 4)]
HEADER = [*releases.BOX_COLUMNS, *CLICKS]
ROWS, IMAGES = 14_610_229, 1_743_042
LABELS = ("/m/0cdn1", "/m/0l515")  # Hamburger, Sandwich
COLUMNS = ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"]


def make_csv(shared: Path, path: Path, rows: int) -> None:
    """Writes the synthetic boxes. Frequencies fall as 1/rank^1.2; ranks are the real excerpt's, then the class list's order."""
    data = shared / "data" / "openimages"
    with (data / "2017_11/train/annotations-human-bbox.csv").open() as file:
        seen = collections.Counter(row["LabelName"] for row in csv.DictReader(file))
    with (data / "class-descriptions-boxable.csv").open() as file:
        labels = sorted((row[0] for row in csv.reader(file)), key=lambda label: -seen[label])
    share = 1 / np.arange(1, len(labels) + 1) ** 1.2
    random = np.random.default_rng(0)
    decimals = pa.array([f"{k // 10**6}.{k % 10**6:06d}" for k in range(10**6 + 1)] + ["-1.000000"])
    flags, sources, names, one = pa.array(["-1", "0", "1"]), pa.array(["xclick", "activemil"]), pa.array(labels), pa.array(["1"])
    images = max(1, IMAGES * rows // ROWS)
    ids = np.sort(random.integers(0, 2**63, images))
    of = np.sort(random.integers(0, images, rows))
    with path.open("wb") as file:
        file.write((",".join(HEADER) + "\n").encode())
        for first in range(0, rows, 1 << 19):
            count = min(1 << 19, rows - first)
            x, y = np.sort(random.integers(0, 10**6 + 1, (2, 2, count)), axis=1)
            machine = random.random(count) < 0.1
            clicks = random.integers(0, 10**6 + 1, (8, count))
            clicks[:, machine] = 10**6 + 1
            columns = [
                pa.array([f"{value:016x}" for value in ids[of[first : first + count]]]),
                sources.take(pa.array(machine.astype(np.int8))),
                names.take(pa.array(random.choice(len(labels), count, p=share / share.sum()))),
                one.take(pa.array(np.zeros(count, np.int8))),
                *(decimals.take(pa.array(values)) for values in (*x, *y)),
                *(flags.take(pa.array(random.choice(3, count, p=p))) for p in ((0.02, 0.6, 0.38), *((0.02, 0.9, 0.08),) * 4)),
                *(decimals.take(pa.array(values)) for values in clicks),
            ]
            pa_csv.write_csv(pa.table(columns, names=HEADER), file, pa_csv.WriteOptions(include_header=False, quoting_style="none"))


def work(what: str, path: Path) -> None:
    """One way, in this process; prints the number of rows and a hash of them."""
    target = path.with_suffix(".parquet")
    if what == "pandas":
        import pandas as pd

        table = pd.read_csv(path)
        table = table[table["LabelName"].isin(LABELS)]
    else:
        from imgclf.openimages import tables

        if what == "convert":
            print(tables.convert(path, target, tables.BOXES))
            return
        found = tables.scan(path, tables.BOXES, LABELS) if what == "scan" else tables.query(target, "LabelName", LABELS)
        table = found.to_pandas()
    rows = sorted(table[COLUMNS].itertuples(index=False, name=None))
    print(len(rows), hashlib.sha256(repr([tuple(map(str, row)) for row in rows]).encode()).hexdigest()[:12])


def measure(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory in MB, output."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the CSV here")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder / "train-annotations-bbox.csv")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        path = folder / "train-annotations-bbox.csv"
        if not path.exists():
            make_csv(options.shared, path, options.rows)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {options.rows:,} rows")
        own = [sys.executable, __file__, str(options.shared), "--folder", str(folder), "--work"]
        ways = {what: [*own, what] for what in ("pandas", "scan", "convert", "query")}
        ways |= {f"peer {number}": peer.format(csv=path).split() for number, peer in enumerate(options.peer)}
        results: dict[str, list[tuple[float, float, str]]] = collections.defaultdict(list)
        for _ in range(options.rounds):
            for what, command in ways.items():
                if what != "convert" or not results[what]:
                    results[what].append(measure(command))
        base_time = statistics.median(run[0] for run in results["pandas"])
        base_memory = statistics.median(run[1] for run in results["pandas"])
        for what, runs in results.items():
            seconds, memory = (statistics.median(run[place] for run in runs) for place in (0, 1))
            low, high = min(run[0] for run in runs), max(run[0] for run in runs)
            assert what == "convert" or what.startswith("peer") or runs[0][2] == results["pandas"][0][2], f"{what} found other rows"
            print(
                f"{what:8} {seconds:6.2f} s ({low:.2f}–{high:.2f})  {memory:6.0f} MB   {base_time / seconds:5.1f}x as fast, "
                f"1/{base_memory / memory:.0f} of the memory   {runs[0][2]}"
            )


if __name__ == "__main__":
    main()
