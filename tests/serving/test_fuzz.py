"""Uploads that nobody meant: mutations of real files and of multipart bodies."""

import os
import random
import time

import pytest
from starlette.testclient import TestClient

from imgclf.serving import server
from imgclf.serving.answers import Prediction, Problem
from imgclf.serving.app import AppOptions
from imgclf.serving.limits import Limits

pytestmark = pytest.mark.slow

UPLOADS = int(os.environ.get("IMGCLF_FUZZED_UPLOADS", "2000"))
SLOWEST = 20.0  # seconds, on a busy machine
ANSWERED = {200, 400, 408, 413, 415, 422}


@pytest.fixture(scope="module")
def client(color_classifier):
    options = AppOptions(limits=Limits(images=8, pixels=2_000_000, seconds=SLOWEST))
    app = server.build([str(color_classifier[0].folder)], options, max_batch=2)
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code == 503:
            time.sleep(0.05)
        yield client


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to five damages of the kinds that files suffer, and that attackers try."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(8):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at:]
            case 2:
                del out[at : at + rng.randint(1, 64)]
            case 3:
                out[at:at] = rng.randbytes(rng.randint(1, 64))
            case 4:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[min(at, other) : max(at, other)][:2000]
            case 5:  # a length or size field
                width = rng.choice((1, 2, 4))
                out[at : at + width] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * width
            case 6:
                at = rng.randrange(min(len(out), 64)) if out else 0  # headers are where decoders branch
                out[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                out += rng.randbytes(rng.randint(1, 256))
    return bytes(out)


def multipart(parts: list[bytes], boundary: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="image"; filename="p%d.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return b"".join(b"--%s\r\n%s%s\r\n" % (boundary, head % k, part) for k, part in enumerate(parts)) + b"--%s--\r\n" % boundary


def test_no_upload_crashes_or_hangs_the_server(client, files):
    rng = random.Random(14)
    real = list(files.values())
    statuses: dict[int, int] = {}
    slowest = 0.0
    for number in range(UPLOADS):
        kind, path = "multipart/form-data; boundary=frontier", "/explain" if number % 50 == 0 else "/predict"
        match number % 3:
            case 0:
                kind, body = "image/jpeg", mutated(rng.choice(real), rng)
            case 1:
                body = multipart([mutated(rng.choice(real), rng) for _ in range(rng.randint(1, 4))], b"frontier")
            case _:
                body = mutated(multipart([rng.choice(real)], b"frontier"), rng)
        started = time.perf_counter()
        answer = client.post(path, content=body, headers={"content-type": kind})
        slowest = max(slowest, time.perf_counter() - started)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code in ANSWERED, (number, answer.text)
        if path == "/predict":
            content = answer.json()
            (Prediction if "images" in content else Problem).model_validate(content)
    assert slowest < SLOWEST
    assert {200, 400, 422} <= statuses.keys()
    whole = client.post("/predict", files=[("image", item) for item in files.items()]).json()
    assert [image["reason"] for image in whole["images"]] == [""] * len(files)
    print(f"{UPLOADS} uploads: {dict(sorted(statuses.items()))}, the slowest {slowest:.2f} s")
