"""A server of S3's protocol on loopback (moto), which fails on request."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import requests
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class S3Server:
    """Serves S3; the account has any key.

    Attributes:
      faults: what goes wrong with the next requests that write or read an object: "503", "403", "reset", "" (nothing); used up in order.
      always: what goes wrong with all of them.
      log: method and path of all requests.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.always = ""
        self.log: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._http = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.port}"

    def __enter__(self) -> "S3Server":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    def puts(self) -> list[str]:
        """The paths of all objects that were written, or begun to be."""
        with self._lock:
            return [path for method, path in self.log if method == "PUT"]

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        of_object = path.count("/") > 1 and method in ("PUT", "GET")
        with self._lock:
            self.log.append((method, path))
            fault = self.always or (self.faults.pop(0) if self.faults and of_object else "") if of_object else ""
        if fault == "reset":
            environ["wsgi.input"].read(1)
            connection = environ["werkzeug.socket"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            raise ConnectionError("hung up on request")
        if fault:
            code = {"503": "SlowDown", "403": "AccessDenied"}[fault]
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]
        return self._moto(environ, start_response)


@contextlib.contextmanager
def serving(monkeypatch) -> Iterator[S3Server]:
    """Runs a server, and lets the usual environment variables name it."""
    with S3Server() as server:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", server.url),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        requests.post(f"{server.url}/moto-api/reset", timeout=10)  # moto keeps buckets in the process, not in the server
        yield server
