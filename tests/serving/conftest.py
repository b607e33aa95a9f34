"""A server's app around the small classifier of three colours, warm."""

import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from imgclf.serving import server
from imgclf.serving.app import AppOptions
from imgclf.serving.limits import Limits

LIMITS = Limits(
    image_bytes=20_000,
    request_bytes=60_000,
    images=3,
    pixels=40_000,
    held_bytes=60_000,
    queue=8,
    seconds=20,
    bytes_per_second=1000,
    grace=0.2,
)


class Serving(NamedTuple):
    client: TestClient
    classifier: object


@pytest.fixture(scope="session")
def serving(color_classifier) -> Iterator[Serving]:
    classifier, _ = color_classifier
    app = server.build(["colors=" + str(classifier.folder), "other=" + str(classifier.folder)], AppOptions(limits=LIMITS), max_batch=1)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield Serving(client, classifier)


@pytest.fixture
def served(color_classifier, tmp_path) -> Iterator[Callable[..., tuple[subprocess.Popen, str, Path]]]:
    """Starts `imgclf serve` on a copy of the run; returns its process, its address and the copy, when it is ready."""
    processes = []

    def start(*options: str) -> tuple[subprocess.Popen, str, Path]:
        run = shutil.copytree(color_classifier[0].folder, tmp_path / f"run{len(processes)}")
        command = [sys.executable, "-c", "from imgclf.cli import main; main()", "serve", str(run), "--port", "0", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        address = re.search(r"http://\S+", process.stderr.readline()).group()
        for _ in range(600):
            if httpx.get(f"{address}/readyz").status_code == 200:
                return process, address, run
            time.sleep(0.1)
        raise AssertionError("not ready within a minute")

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_until_ready(client: TestClient) -> None:
    while client.get("/readyz").status_code == 503:
        time.sleep(0.02)


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """Pictures of each format that browsers and phones send, by name."""
    rng = np.random.default_rng(7)
    found = {}
    for number, (name, options) in enumerate(
        {"a.jpg": {"quality": 90}, "b.png": {}, "c.webp": {"quality": 80}, "d.gif": {}, "e.bmp": {}}.items()
    ):
        pixels = np.kron(rng.integers(0, 150, (5, 7, 3)), np.ones((9, 8, 1))).astype(np.uint8)
        pixels[..., number % 3] += 100
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, Image.registered_extensions()[name[1:]], **options)
        found[name] = file.getvalue()
    return found
