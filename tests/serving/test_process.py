"""The server as a process: how it ends, reloads and treats clients that stall. Real sockets, real signals."""

import base64
import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow


def test_sigterm_finishes_what_is_in_flight_and_sighup_drops_nothing(served, files):
    process, address, run = served("--max-batch", "4")
    statuses: list[int] = []

    def ask(number: int) -> None:
        with httpx.Client(timeout=60) as client:
            for _ in range(number):
                statuses.append(client.post(f"{address}/predict", files={"i": files["a.jpg"]}).status_code)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, 150) for _ in range(8)]
        for _ in range(2):
            time.sleep(0.3)
            process.send_signal(signal.SIGHUP)
            assert process.stderr.readline() == "run0 is reloaded.\n"
        for one in asking:
            one.result()
    assert statuses == [200] * 1200
    (run / "results.json").write_text("{")
    process.send_signal(signal.SIGHUP)
    assert process.stderr.readline().startswith("run0 stays as it was: ")
    assert httpx.post(f"{address}/predict", files={"i": files["a.jpg"]}).status_code == 200

    with socket.create_connection(address.removeprefix("http://").split(":")) as slow:  # half of a request when SIGTERM comes
        body = files["a.jpg"]
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:100]
        )
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        slow.sendall(body[100:])
        answer = slow.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"predicted"' in answer
    assert process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")


def test_ctrl_c_ends_quietly(served):
    process, _, _ = served()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr.read() == ""


def test_clients_that_stall_are_let_go(served, files):
    process, address, _ = served("--min-rate", "5000", "--queue", "64")
    place = address.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"
    with socket.create_connection(place, timeout=60) as body, socket.create_connection(place, timeout=60) as headers:
        body.sendall(head + b"x" * 10)
        headers.sendall(b"POST /predict HTTP/1.1\r\nHost: ")
        assert httpx.post(f"{address}/predict", files={"i": files["a.jpg"]}).status_code == 200  # nobody else waits for them
        answer = body.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"less than 5,000 bytes per second" in answer
        assert headers.recv(1) == b""
    assert httpx.get(f"{address}/healthz").status_code == 200
    before = len(os.listdir(f"/proc/{process.pid}/fd")) if os.path.exists("/proc") else 0
    for _ in range(50):  # clients that go away in the middle of a body
        with socket.create_connection(place) as gone:
            gone.sendall(head + b"x" * 1000)
    time.sleep(1.5)
    assert httpx.get(f"{address}/healthz").status_code == 200
    if before:
        assert len(os.listdir(f"/proc/{process.pid}/fd")) <= before + 3


@pytest.mark.parametrize("token", ["", "secret"])
def test_schemathesis_finds_no_failure(served, files, tmp_path, token):
    """Property-based tests that https://schemathesis.io makes of the server's OpenAPI; its images are real ones."""
    pytest.importorskip("schemathesis")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    _, address, _ = served(*(["--token", token] if token else []))
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--max-examples", "60", "--seed", "14"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "30", "--no-color"]
    command += ["-H", f"Authorization: Bearer {token}"] if token else []
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "schemathesis_pictures",
        "PYTHONPATH": str(Path(__file__).parent),
        "PICTURES": str(tmp_path),
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_page_in_a_browser(served, files, tmp_path):
    """Narrow and dark, by the keyboard: pictures are answered, explained, and nothing is asked of anybody else."""
    if (binary := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("no Chromium")
    sys.path.append(str(Path(__file__).parents[1] / "reporting"))
    from chromium import Browser

    _, address, _ = served("--threshold", "1")
    browser = Browser(binary, tmp_path)
    try:
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        browser.call("Page.navigate", url=f"{address}/")
        browser.wait_for("Page.loadEventFired")
        waits = "new Promise(async done => {{ while (!({})) await new Promise(next => setTimeout(next, 50)); done(true); }})"
        browser.evaluate(waits.format("state.models.length"))
        assert browser.evaluate("byId('about').textContent") == "run0: 3 classes (blue, green, red)"
        pictures = {name: base64.b64encode(data).decode() for name, data in files.items() if name in ("a.jpg", "b.png")}
        pictures["broken.jpg"] = base64.b64encode(b"no picture").decode()
        browser.evaluate(
            f"add(Object.entries({json.dumps(pictures)}).map(([name, data]) => "
            "new File([Uint8Array.from(atob(data), one => one.charCodeAt(0))], name, {type: 'image/x'}))), true"
        )
        browser.evaluate(waits.format("!state.running && !document.querySelector('.waiting')"))
        headings = browser.evaluate("[...document.querySelectorAll('.result h2')].map(one => one.textContent)")
        assert len(headings) == 3
        assert headings[2] == "No answer"
        assert browser.evaluate("document.querySelectorAll('ol.bars li').length") == 6
        assert browser.evaluate("document.querySelectorAll('ul.near img').length") == 12
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.evaluate("[...document.images].every(one => one.hasAttribute('alt'))")
        browser.evaluate("document.querySelector('.toggle').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
        assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        assert browser.evaluate("document.querySelectorAll('img.heat').length") == 1
        asked = [event["params"]["request"]["url"] for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
        assert asked
        assert all(url.startswith((f"{address}/", "data:", f"blob:{address}/")) for url in asked)
        problems = [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]
        problems += [event for event in browser.events if "Content Security Policy" in str(event)]
        assert not problems
    finally:
        browser.close()
