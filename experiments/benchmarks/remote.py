"""How fast training reads photos from S3 with latency, beside the same photos on this machine, and torch's DataLoader over s3fs.

    python experiments/benchmarks/remote.py PHOTOS --torch PYTHON --latency 20 50

PHOTOS is a folder of JPEGs in class folders. A server of S3's protocol on loopback (remote_server.py) waits before each answer. All arms: a
random resized crop of 224 from 8 % of the area on, a flip, batches of 64 in uint8, nothing kept in memory; two threads here, two workers
there. A first pass is not counted. Every round measures each arm once, one after another; the server computes on the same cores.
"""

import argparse
import dataclasses
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pack import config_of, measure

from imgclf.config import Config
from imgclf.data.table import Dataset, load_dataset
from imgclf.remote.ahead import WINDOW

HERE = Path(__file__).parent
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def all_of(config: Config) -> Dataset:
    """The photos, all of them to train on."""
    dataset = load_dataset(config)
    return dataclasses.replace(dataset, table=dataset.table.assign(split="train"))


def torch_rate(python: str, urls: Path, passes: int) -> float:
    done = subprocess.run([python, HERE / "remote_torch.py", urls, str(passes)], capture_output=True, text=True, check=True)
    return float(re.findall(r"([\d.]+) img/s", done.stdout)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch, torchvision and s3fs")
    parser.add_argument("--latency", type=float, nargs="+", default=[20, 50], help="milliseconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2, help="over the photos, in a round")
    arguments = parser.parse_args()
    os.environ |= ENVIRONMENT
    with tempfile.TemporaryDirectory() as name:
        os.environ["IMGCLF_CACHE"] = name
        names = [path.relative_to(arguments.photos).as_posix() for path in arguments.photos.rglob("*.jpg")]
        (urls := Path(name) / "urls.txt").write_text("\n".join(f"s3://photos/{one}" for one in sorted(names)))
        here = config_of("folder", arguments.photos)
        dataset = all_of(here)
        print(
            f"{len(dataset.table)} photos, {sum((arguments.photos / one).stat().st_size for one in names) / len(names) / 1000:.0f} kB each"
        )
        for latency in arguments.latency:
            command = [sys.executable, HERE / "remote_server.py", arguments.photos, "--latency", str(latency)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                os.environ["AWS_ENDPOINT_URL"] = server.stdout.readline().strip()
                there = config_of("folder", "s3://photos")
                remote = all_of(there)
                rates: dict[str, list[float]] = {"here": [], "S3": [], "torch over s3fs": []}
                for _ in range(arguments.rounds):
                    rates["here"].append(measure(dataset, here, arguments.passes)[0])
                    rates["S3"].append(measure(remote, there, arguments.passes)[0])
                    if arguments.torch:
                        rates["torch over s3fs"].append(torch_rate(arguments.torch, urls, arguments.passes))
                print(
                    f"{latency:.0f} ms: images/s, median (range) of {arguments.rounds} rounds; {WINDOW.peak / 2**20:.1f} MiB ahead at most"
                )
                for arm, found in rates.items():
                    if found:
                        print(f"  {arm}: {statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})", flush=True)
            finally:
                server.kill()
                server.wait()


if __name__ == "__main__":
    main()
