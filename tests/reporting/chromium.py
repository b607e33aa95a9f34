"""Chromium, driven by its DevTools protocol: what a page does wrong, what stands on it, how it looks."""

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path

import axe_core_python

DEADLINE = 60  # seconds for any answer, on a busy machine
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Browser:
    """Chromium by the DevTools protocol over its pipe (https://chromedevtools.github.io/devtools-protocol/): no driver, no port."""

    def __init__(self, binary: str, folder: Path):
        read_end, self._to = os.pipe()
        self._from, write_end = os.pipe()
        # Chromium reads commands on descriptor 3 and answers on 4. Copies far above these, or one redirection could close another's.
        to_read, to_write = (fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (read_end, write_end))
        os.close(read_end)
        os.close(write_end)
        script = f'exec "$@" 3<&{to_read} 4>&{to_write} {to_read}<&- {to_write}>&-'
        environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", binary, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number, self.events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setScrollbarsHidden", hidden=True)  # as on a telephone: the width is the page's
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, page: Path, width: int = 1280, *, dark: bool = False) -> list[str]:
        """Loads a file; returns what it should not have done: console messages, exceptions, requests other than for itself."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        assert "errorText" not in (answer := self.call("Page.navigate", url=page.as_uri())), answer
        self.wait_for("Page.loadEventFired")
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestIdleCallback(done, {timeout: 2000}))).then(() => 0)")
        return [told for event in self.events if (told := _misdeed(event, page.as_uri()))]

    def press(self, key: str) -> None:
        """A key goes down and up, as if a person had pressed it."""
        numbers = {"Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39}
        text = {"text": "\r" if key == "Enter" else key} if key in ("Enter", " ") else {}
        what = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": numbers[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **what, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page for those who don't see it, or not well: a line each, with the first element."""
        if not self.evaluate("'axe' in window"):
            self.evaluate((Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8") + "; 0")
        found = self.evaluate("axe.run().then(({violations}) => violations.map(v => [v.id, v.nodes.length, v.help, v.nodes[0].html]))")
        return [f"{rule} ({count} times): {told}: {html[:200]}" for rule, count, told, html in found]

    def screenshot(self, path: Path, height: int = 16_000) -> Path:
        """Of the whole page, or of its uppermost pixels."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=self.clip(height))["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def clip(self, height: int) -> dict:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}

    def close(self) -> None:
        self._session = None
        os.write(self._to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            os.close(self._to)
            os.close(self._from)

    def _receive(self) -> dict:
        end = time.monotonic() + DEADLINE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {DEADLINE} s"
            data = os.read(self._from, 1 << 20)
            assert data, "Chromium closed its pipe"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def _misdeed(event: dict, page: str) -> str | None:
    params = event.get("params", {})
    match event.get("method"):
        case "Runtime.consoleAPICalled":
            return f"console.{params['type']}: {params['args']}"
        case "Runtime.exceptionThrown":
            return f"exception: {params['exceptionDetails']['text']}"
        case "Log.entryAdded":
            return f"log {params['entry']['level']}: {params['entry']['text']}"
        case "Network.requestWillBeSent" if params["request"]["url"] != page and not params["request"]["url"].startswith("data:"):
            return f"request: {params['request']['url']}"
        case "Page.javascriptDialogOpening":
            return f"dialog: {params['message']}"
    return None
