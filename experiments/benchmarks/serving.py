"""How many requests a second `imgclf serve` answers and how long the slowest wait, beside a plain FastAPI app and LitServe.

    python experiments/benchmarks/serving.py RUN DIR [--engine jax] [--connections 1 8 32] [--pairs 4] [--seconds 8] [--litserve]

RUN is a finished run (or, with --engine onnx, one with an export in exports/onnx), DIR holds JPEGs. All servers have the same engine, the
same decoding and the same words in their answers; each request is a multipart body with one JPEG, sent by wrk (https://github.com/wg/wrk)
over so many connections at once. "naive" is what tutorials show: an endpoint that decodes and computes its own image, in FastAPI's pool of
threads. The servers are measured in turn, so that what else the machine does falls on all alike; the ratios are of such turns. LitServe
(https://github.com/Lightning-AI/LitServe) batches up to 16 images within 5 ms, with one worker; see litserve_peer.py.
"""

import argparse
import contextlib
import itertools
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

BOUNDARY = "imgclf-benchmark"
READ_BODIES = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do
  local file = io.open(line, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
local at = 0
"""
LUA = f"""{READ_BODIES}
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=imgclf-benchmark"
function request()
  at = at % #bodies + 1
  return wrk.format(nil, "/predict", nil, bodies[at])
end
"""
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--engine", default="jax", choices=["jax", "onnx"])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--litserve", action="store_true")
    parser.add_argument("--start", choices=["naive"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        naive(args.run, args.engine, args.port)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    names = ["imgclf", "naive", *(["litserve"] if args.litserve else [])]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        environment = {"BODIES": write_bodies(Path(args.folder), Path(folder), args.images)}
        script = Path(folder) / "wrk.lua"
        script.write_text(LUA)
        ports = {name: stack.enter_context(started(name, args)) for name in names}
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for name, port in ports.items():
            wrk(port, 1, args.seconds, script, environment)  # warm
            print(f"{name} is up", flush=True)
        for connections, pair in itertools.product(args.connections, range(args.pairs)):
            for name in names if pair % 2 == 0 else names[::-1]:
                figures = wrk(ports[name], connections, args.seconds, script, environment)
                found.setdefault((name, connections), []).append(figures)
                print(f"{connections:3} connections, {name:8} {figures[0]:6.1f} requests/s, p99 {1000 * figures[1]:6.0f} ms", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}\n\n| server | " + " | ".join(f"{n} connections" for n in args.connections) + " |")
    print("|---|" + "---|" * len(args.connections))
    for name in names:
        print(f"| {name} | " + " | ".join(row(found[name, n], found["naive", n]) for n in args.connections) + " |")


def row(own: list[tuple[float, float]], naive: list[tuple[float, float]]) -> str:
    """Medians of requests/s and p99, and of the ratio of each to naive's in the same turn, with its range."""
    told = []
    for k, (scale, unit) in enumerate(((1, "/s"), (1000, " ms"))):
        ratios = sorted(a[k] / b[k] for a, b in zip(own, naive, strict=True))
        middle = scale * statistics.median(one[k] for one in own)
        told.append(f"{middle:.0f}{unit} ({statistics.median(ratios):.2f}x; {ratios[0]:.2f}–{ratios[-1]:.2f})")
    return f"{told[0]}, p99 {told[1]}"


def write_bodies(source: Path, folder: Path, count: int) -> str:
    """Writes multipart bodies and the list of them; returns its path."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    paths = []
    for number, path in enumerate(files):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{number}.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        paths.append(folder / f"{number}.body")
        paths[-1].write_bytes(head.encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode())
    return listed(paths, folder)


@contextlib.contextmanager
def started(name: str, args: argparse.Namespace):
    """Yields the port of a server in a process of its own, when it is ready."""
    port = free_port()
    if name == "imgclf":
        command = [
            sys.executable,
            "-c",
            "from imgclf.cli import main; main()",
            "serve",
            args.run,
            "--engine",
            args.engine,
            "--port",
            str(port),
        ]
    elif name == "litserve":
        command = [sys.executable, str(Path(__file__).with_name("litserve_peer.py")), args.run, args.engine, str(port)]
    else:
        command = [sys.executable, __file__, args.run, "--engine", args.engine, "--start", name, "--port", str(port)]
    path = {"imgclf": "/readyz", "naive": "/openapi.json", "litserve": "/health"}[name]
    process = subprocess.Popen(command)
    try:
        wait_until_answered(f"http://127.0.0.1:{port}{path}", process)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until_answered(url: str, process: subprocess.Popen) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5)
            return
        if process.poll() is not None:
            raise SystemExit(f"the server of {url} ended with {process.returncode}")
        time.sleep(0.5)
    raise SystemExit(f"nothing answered {url} within five minutes")


def said_by_wrk(port: int, connections: int, seconds: int, script: Path, environment: dict[str, str]) -> str:
    """What wrk prints of so many seconds with so many connections; BODIES in the environment is the list of bodies."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True).stdout


def listed(paths: list[Path], folder: Path) -> str:
    """Writes the list of bodies that the scripts of wrk read; returns its path."""
    (folder / "list").write_text("".join(f"{path}\n" for path in paths))
    return str(folder / "list")


def wrk(port: int, connections: int, seconds: int, script: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Requests/s and the 99th percentile of the latency, in seconds."""
    out = said_by_wrk(port, connections, seconds, script, environment)
    if wrong := re.search(r"Non-2xx.*|Socket errors.*", out):
        raise SystemExit(f"wrk: {wrong.group()}")
    if int(re.search(r"(\d+) requests in", out).group(1)) < 2 * connections:
        raise SystemExit(f"fewer than {2 * connections} answers in {seconds} s say nothing: give more --seconds, or a quieter machine.")
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", out).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), float(value) * UNITS[unit]


def naive(run: str, engine_name: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI, UploadFile

    from imgclf.serving import answers
    from imgclf.serving.batching import Answer
    from imgclf.serving.engines import open_engine
    from imgclf.serving.uploads import Upload

    engine = open_engine(Path(run), engine_name, 50_000_000)
    app = FastAPI()

    @app.post("/predict")
    def predict(image: UploadFile) -> dict:
        data = image.file.read()
        found = engine.answers(engine.view(data)[None])
        p_value = None if found.none_of_these is None else float(found.none_of_these[0])
        upload = Upload(image.filename or "", data)
        return {"images": [answers.image_answer(engine, upload, Answer(found.probabilities[0], p_value), 5, None)]}

    engine.answers(engine.blank(1))
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
