"""A local Open Images: the real fixtures under the release's paths, on a real HTTP server that misbehaves on request.

Run as a program it serves until it is ended: `python release_server.py SHARED --port 8000 --latency 0.05`.
"""

import argparse
import base64
import csv
import dataclasses
import functools
import hashlib
import io
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

IMAGE_HEADER = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)


def release_files(shared: Path, port: int) -> dict[str, bytes]:
    """Path → contents: V7's validation set is the 66 photos' boxes; V4's splits and V7's train and test are the real V3 excerpts."""
    data = shared / "data" / "openimages"
    names = (data / "class-descriptions-boxable.csv").read_bytes()
    files = {
        "v7/oidv7-class-descriptions-boxable.csv": b"LabelName,DisplayName\n" + names,
        "2018_04/class-descriptions-boxable.csv": names,
        "v7/oidv7-class-descriptions.csv": (data / "2017_11/class-descriptions.csv").read_bytes(),
        "2018_04/class-descriptions.csv": (data / "2017_11/class-descriptions.csv").read_bytes(),
        "2018_04/bbox_labels_600_hierarchy.json": (data / "bbox_labels_600_hierarchy.json").read_bytes(),
        "v5/validation-annotations-bbox.csv": (data / "boxes.csv").read_bytes(),
        "v6/oidv6-train-annotations-bbox.csv": (data / "2017_11/train/annotations-human-bbox.csv").read_bytes(),
        "v5/test-annotations-bbox.csv": (data / "2017_11/test/annotations-human-bbox.csv").read_bytes(),
    }
    for split in ("train", "validation", "test"):
        real = data / "2017_11" / split
        short = "val" if split == "validation" else split
        files[f"2018_04/{split}/{split}-annotations-bbox.csv"] = (real / "annotations-human-bbox.csv").read_bytes()
        labels = (real / "annotations-human.csv").read_bytes()
        files[f"v5/{split}-annotations-human-imagelabels-boxable.csv"] = labels
        files[f"v7/oidv7-{short}-annotations-human-imagelabels.csv"] = labels
    for split, name in (
        ("train", "2018_04/train/train-images-boxable-with-rotation.csv"),
        ("train", "v6/oidv6-train-images-with-labels-with-rotation.csv"),
        ("validation", "2018_04/validation/validation-images-with-rotation.csv"),
        ("test", "2018_04/test/test-images-with-rotation.csv"),
    ):
        rows = (data / "2017_11" / split / "images.csv").read_text(encoding="utf-8").splitlines()[1:]
        text = "\n".join([IMAGE_HEADER, *(row + "," for row in rows)]) + "\n"
        if split == "validation":  # the 66 photos first: one of them is in the excerpt too, with its Flickr address
            photos = (data / "images.csv").read_text(encoding="utf-8").replace("PORT_PLACEHOLDER/", f"{port}/original/")
            text = photos + "\n".join(row + "," for row in rows) + "\n"
        files[name] = text.encode()
    return files


@dataclasses.dataclass
class Request:
    path: str
    time: float
    headers: dict[str, str]
    sent: int = 0  # bytes of the body
    end: float = 0.0
    whole: bool = False


class ReleaseServer:
    """Serves a release at /release/, the mirror's photos at /mirror/SPLIT/ID.jpg, originals at /original/ID.jpg.

    Attributes:
      files: path below /release/ → bytes; a test may change them.
      photos: image id → bytes.
      behaviour: image id or release path → what goes wrong with it, see `_misbehave`; a list is used up one request after the other.
      log: all requests.
      latency: seconds before each answer; connect_latency: and once for each connection.
    """

    def __init__(self, shared: Path, port: int = 0, latency: float = 0.0):
        folder = shared / "data" / "openimages"
        self.photos = {path.stem: path.read_bytes() for path in sorted((folder / "photos").glob("*.jpg"))}
        self.placeholder = (folder / "placeholder" / "imageNotFound.gif").read_bytes()
        self.behaviour: dict[str, str | list[str]] = {}
        self.log: list[Request] = []
        self.latency, self.connect_latency = latency, 0.0
        self.bandwidth = 0.0  # bytes a second of each connection; 0 = unlimited
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            release_server = server

        self._http = _Server(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.files = release_files(shared, self.port)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> "ReleaseServer":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._http.shutdown()
        self._http.server_close()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def requests(self, part: str = "") -> list[Request]:
        with self._lock:
            return [request for request in self.log if part in request.path]

    def photo_requests(self) -> Counter:
        return Counter(Path(request.path).stem for request in self.requests() if request.path.endswith(".jpg"))

    def behaviour_of(self, key: str) -> str:
        with self._lock:
            what = self.behaviour.get(key, "")
            if isinstance(what, list):
                return what.pop(0) if what else ""
            return what

    def note(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A client that was killed, or hung up on, is no error of these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    release_server: ReleaseServer

    def setup(self) -> None:
        super().setup()
        time.sleep(self.release_server.connect_latency)

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server = self.release_server
        path = self.path.split("?")[0].lstrip("/")
        self.seen = Request(path, time.time(), dict(self.headers))
        server.note(self.seen)
        if server.latency:
            time.sleep(server.latency)
        if path.startswith("release/"):
            name = path.removeprefix("release/")
            self._misbehave(server.behaviour_of(name), server.files.get(name), "text/csv")
        elif path.endswith("photo_unavailable.png"):
            self._send(200, _unavailable(), "image/png")
        else:
            image_id = Path(path).stem
            self._misbehave(server.behaviour_of(image_id), server.photos.get(image_id), "image/jpeg")

    def _misbehave(self, what: str, body: bytes | None, kind: str) -> None:
        server = self.release_server
        name, _, value = what.partition("=")
        if name in ("404", "410", "500", "503", "403"):
            self._send(int(name), b"<html>no</html>", "text/html")
        elif name == "429":
            self._send(429, b"slow down", "text/plain", {"Retry-After": value} if value else {})
        elif name == "redirect":
            self._send(302, b"", "text/html", {"Location": value or server.url("photo_unavailable.png")})
        elif name == "gif":
            self._send(200, server.placeholder, "image/gif")
        elif name == "html":
            self._send(200, b"<!doctype html><html><body>Please log in</body></html>", "image/jpeg")
        elif name == "type":
            self._send(200, body, "application/octet-stream")
        elif name == "changed":
            self._send(200, _recoded(body), kind)
        elif name == "robots":
            self._send(200, body, kind, {"X-Robots-Tag": value})
        elif name == "huge":
            self._send(200, body + bytes(int(value)), kind)
        elif name == "endless":
            self._send(200, body + bytes(int(value)), kind, chunked=True)
        elif name == "truncated":
            self._send(200, body, kind, stop=len(body) // 2)
        elif name == "short":  # a whole answer of half a photo
            self._send(200, body[: len(body) // 2], kind)
        elif name == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif name == "slow":
            time.sleep(float(value))
            self._send(200, body, kind)
        elif name == "trickle":
            self._send(200, body, kind, pause=float(value))
        elif name == "md5":
            self._send(200, body, kind, {"x-goog-hash": f"md5={value}"})
        elif body is None:
            self._send(404, b"<html>not found</html>", "text/html")
        else:
            self._send(200, body, kind)

    def _send(self, code, body, kind, headers=None, *, stop=None, pause=0.0, chunked=False) -> None:
        headers = dict(headers or {})
        digest = _md5(body)
        etag = f'"{digest.hex()}"'
        asked = self.headers.get("Range", "")
        if code == 200 and asked.startswith("bytes=") and self.headers.get("If-Range", etag) == etag:
            first = int(asked[6:].split("-")[0])
            if first >= len(body):
                code, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
            else:
                code, headers["Content-Range"], body = 206, f"bytes {first}-{len(body) - 1}/{len(body)}", body[first:]
        if code in (200, 206):
            headers["ETag"] = etag
        if code == 200:
            headers.setdefault("x-goog-hash", f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}")
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            for one in value.split(" | "):
                self.send_header(name, one)
        self.end_headers()
        step = 16_384 if pause or self.release_server.bandwidth else 1 << 20
        if self.release_server.bandwidth:
            pause = step / self.release_server.bandwidth
        for first in range(0, len(body), step):
            piece = body[first : first + step]
            if stop is not None and self.seen.sent + len(piece) > stop:
                self.wfile.write(piece[: stop - self.seen.sent])
                self.seen.sent = stop
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.seen.sent += len(piece)
            if pause:
                time.sleep(pause)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.seen.end, self.seen.whole = time.time(), True


@functools.lru_cache(maxsize=256)
def _md5(body: bytes) -> bytes:
    return hashlib.md5(body).digest()


def _unavailable() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (500, 374), (243, 245, 246)).save(buffer, "PNG")
    return buffer.getvalue()


def _recoded(body: bytes) -> bytes:
    """The same photo as another file, as after an edit by its author."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(body)) as image:
        image.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def photo_boxes(shared: Path) -> list[dict[str, str]]:
    """The rows of boxes.csv."""
    with (shared / "data" / "openimages" / "boxes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    with ReleaseServer(options.shared, options.port, options.latency) as running:
        print(f"Open Images at {running.url('release/')}, photos at {running.url('mirror/')}", flush=True)
        threading.Event().wait()
