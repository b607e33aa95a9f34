"""A proxy on loopback that lets requests through to a server, late or broken, by a plan that counts them."""

import contextlib
import http.client
import http.server
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

import loopback

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
FORBIDDEN = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class FaultyProxy(http.server.ThreadingHTTPServer):
    """Passes requests on to `upstream`, but for those that the plan spoils.

    A plan is what happens to the requests that read or write an object and whose path holds `only`, in the order in which they come:
      "" or "pass": nothing;
      "503": Slow Down, as S3 says it; "500", "403", "404": these;
      "reset": the connection breaks (RST) in the middle of the body;
      "short": the right Content-Length, half of the body, and a clean end;
      "stall": half of the body, and then nothing until the proxy ends;
      "slow": a byte every 50 ms.

    Attributes:
      plan: used up in order.
      always: what happens to all once the plan is used up.
      latency: seconds before each answer.
      log: method and path of the requests, in order.
      most_at_once: how many were under way together.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(upstream)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.under_way = 0
        self.reset()

    def reset(self) -> None:
        """Well-behaved again, with an empty log."""
        self.plan: Sequence[str] = ()
        self.always, self.only, self.latency = "", "", 0.0
        self.log: list[tuple[str, str]] = []
        self.most_at_once = 0

    def fault(self, method: str, path: str) -> str:
        with self.lock:
            self.log.append((method, path))
            if self.only not in path:
                return ""
            if self.plan:
                first, *rest = self.plan
                self.plan = rest
                return first
            return self.always

    def count(self, part: str) -> int:
        with self.lock:
            return sum(part in path for _, path in self.log)

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are what this is about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *arguments: object) -> None:
        pass

    def _answered(self) -> None:
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most_at_once = max(server.most_at_once, server.under_way)
        try:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        finally:
            with server.lock:
                server.under_way -= 1

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answered

    def _answer(self, body: bytes) -> None:
        fault = self.server.fault(self.command, self.path)
        if self.server.latency:
            time.sleep(self.server.latency)
        if fault in ("503", "500", "403", "404"):
            self._send(int(fault), {"Content-Type": "application/xml"}, SLOW_DOWN if fault == "503" else FORBIDDEN)
            return
        status, headers, content = self._upstream(body)
        if fault in ("", "pass") or self.command == "HEAD":
            self._send(status, headers, content)
            return
        self._head(status, headers, len(content))
        half = content[: len(content) // 2]
        self.close_connection = True
        if fault == "slow":
            for byte in content:
                if self.server.over.wait(0.05):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            return
        self.wfile.write(half)
        self.wfile.flush()
        if fault == "stall":
            self.server.over.wait()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise ConnectionError("reset on request")

    def _upstream(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = self.server.upstream
        connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=30)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
            dropped = ("connection", "transfer-encoding", "keep-alive", "date", "server")
            if self.command != "HEAD":
                dropped += ("content-length",)
            return response.status, {name: value for name, value in response.getheaders() if name.lower() not in dropped}, content

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self._head(status, headers, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def before(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy before a server, as long as the block runs."""
    with loopback.running(FaultyProxy(upstream)) as proxy:
        try:
            yield proxy
        finally:
            proxy.over.set()


@contextlib.contextmanager
def folder(path: str, prepare: Callable[[], None] = lambda: None) -> Iterator[str]:
    """A server of a folder on this machine, with an index of each folder; yields its URL."""
    import functools

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    prepare()
    with loopback.running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=path))) as server:
        yield f"http://127.0.0.1:{server.server_port}"
