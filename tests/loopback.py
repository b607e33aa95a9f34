"""Servers on this machine for the length of a test, and the Hugging Face hub's client pointed at one."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants

Server = TypeVar("Server", bound=http.server.HTTPServer)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Lets a server answer, in a thread of its own, as long as the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def use_hub(url: str, cache: Path, monkeypatch) -> None:
    """Sets what HF_ENDPOINT and HF_HOME set when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
