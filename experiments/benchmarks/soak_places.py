"""Where soak.py works: a loopback server of S3's protocol whose answers fail, a small disk, and some photos."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))  # the server, and the proxy that breaks connections

PER_CLASS, CLASSES = 20, 6
DISK = "96m"


class Store:
    """The objects in the bucket."""

    def __init__(self, client: Any):
        self._client = client

    def keys(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket="bucket", Key=key)["Body"].read()

    def fill(self, prefix: str, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self._client.upload_file(str(path), "bucket", f"{prefix}/{path.relative_to(folder).as_posix()}")

    def keep(self, prefix: str, folder: Path) -> None:
        for key in self.keys(f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(key))

    def remove(self, prefix: str) -> None:
        for key in self.keys(prefix):
            self._client.delete_object(Bucket="bucket", Key=key)


@contextlib.contextmanager
def served(photos: Path) -> Iterator[tuple[Any, Store]]:
    """A server with the photos, behind a proxy that counts what is fetched whole; the usual environment variables name the proxy."""
    import boto3
    import faulty_proxy
    import loopback
    from s3_server import S3Server

    class Counting(faulty_proxy.FaultyProxy):
        def reset(self) -> None:
            super().reset()
            self.gets: Counter[str] = Counter()

        def fault(self, method: str, path: str) -> str:
            found = super().fault(method, path)
            self.log.clear()  # hours of requests would be the memory that grows
            if method == "GET" and not found and "?" not in path:
                self.gets[path] += 1
            return found

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request
    with S3Server() as server, loopback.running(Counting(server.url)) as proxy:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ.update(keys | {"AWS_ENDPOINT_URL": proxy.url})
        client = boto3.client("s3", endpoint_url=server.url)
        client.create_bucket(Bucket="bucket")
        store = Store(client)
        store.fill("photos", photos)
        yield proxy, store


def small_disk(folder: Path, mounted: contextlib.ExitStack) -> bool:
    """Mounts a small tmpfs at `folder`, where that is allowed; what an earlier start has left there is taken away."""
    if os.geteuid() == 0:
        while os.path.ismount(folder):
            subprocess.run(["umount", "-l", folder], check=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "imgclf-soak", folder], capture_output=True).returncode == 0:
            mounted.callback(subprocess.run, ["umount", "-l", folder])
            return True
    print("No disk gets full: a small tmpfs can't be mounted here, which needs root.", flush=True)
    return False


def copy_photos(source: Path, target: Path) -> None:
    """Copies some photos of some classes."""
    classes = sorted(path for path in source.iterdir() if path.is_dir())[:CLASSES]
    if len(classes) < 2:
        sys.exit(f"{source} holds no folders of classes.")
    for folder in classes:
        (target / folder.name).mkdir(parents=True)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))[:PER_CLASS]:
            shutil.copy(path, target / folder.name / path.name)
