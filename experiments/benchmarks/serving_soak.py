"""Does a server's memory stay flat? Many requests with small pictures, some of them damaged, some refused, and reloads in between.

    python experiments/benchmarks/serving_soak.py RUN DIR [--requests 100000] [--connections 16] [--seconds 10]

RUN is a finished run with a small model, DIR holds pictures. wrk sends them in rounds; after each round the server's resident memory, open
files and threads are read from /proc, and every tenth round SIGHUP has the model read anew. The verdict compares the median memory of the
second fifth of the rounds, when all is warm, with that of the last fifth.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serving import READ_BODIES, free_port, listed, said_by_wrk, wait_until_answered

LUA = (
    READ_BODIES
    + """
function request()
  at = at % #bodies + 1
  local kind = at % 9 == 0 and "application/json" or at % 2 == 0 and "image/png" or "multipart/form-data; boundary=soak"
  return wrk.format("POST", "/predict", {["Content-Type"] = kind}, bodies[at])
end
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-c", "from imgclf.cli import main; main()", "serve", args.run, "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {"BODIES": write_bodies(Path(args.folder), Path(folder))}
        (Path(folder) / "wrk.lua").write_text(LUA)
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(command, stderr=log)
        try:
            wait_until_answered(f"http://127.0.0.1:{port}/readyz", server)
            soak(args, server.pid, port, Path(folder) / "wrk.lua", environment)
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"the server ended with {server.wait(60)}; reloads: {(Path(folder) / 'log').read_text().count('is reloaded')}")


def soak(args: argparse.Namespace, pid: int, port: int, script: Path, environment: dict[str, str]) -> None:
    done, rounds, started = 0, [], time.perf_counter()
    while done < args.requests:
        if len(rounds) % 10 == 9:
            os.kill(pid, signal.SIGHUP)
        out = said_by_wrk(port, args.connections, args.seconds, script, environment)
        done += int(re.search(r"(\d+) requests in", out).group(1))
        if errors := re.search(r"Socket errors.*", out):
            print(errors.group())
        status = Path(f"/proc/{pid}/status").read_text()
        memory, threads = (int(re.search(rf"{name}:\s+(\d+)", status).group(1)) for name in ("VmRSS", "Threads"))
        rounds.append(memory / 1024)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        print(f"{done:7,} requests, {rounds[-1]:6.1f} MiB, {files} files, {threads} threads", flush=True)
    fifth = max(1, len(rounds) // 5)
    early, late = statistics.median(rounds[fifth : 2 * fifth]), statistics.median(rounds[-fifth:])
    rate = done / (time.perf_counter() - started)
    print(f"{done:,} requests, {rate:.0f}/s: {early:.1f} MiB early, {late:.1f} MiB late, {100 * (late / early - 1):+.1f} %")


def write_bodies(source: Path, folder: Path) -> str:
    """Writes 18 bodies, of which the even ones are raw, the others multipart with three pictures, and some damaged; returns their list."""
    pictures = [path.read_bytes() for path in sorted(source.rglob("*.png"))[:54]]
    paths = []
    for number in range(1, 19):
        chosen = pictures[3 * number - 3 : 3 * number]
        if number % 6 == 0:
            chosen[0] = chosen[0][: len(chosen[0]) // 2]
        head = 'Content-Disposition: form-data; name="image"; filename="{}.png"\r\n\r\n'
        parts = [b"--soak\r\n" + head.format(k).encode() + picture + b"\r\n" for k, picture in enumerate(chosen)]
        paths.append(folder / str(number))
        paths[-1].write_bytes(chosen[0] if number % 2 == 0 else b"".join(parts) + b"--soak--\r\n")
    return listed(paths, folder)


if __name__ == "__main__":
    main()
