"""A bundle in a repository of the Hugging Face hub: hf://USER/NAME, or hf://datasets/USER/NAME."""

import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from imgclf.errors import UserError
from imgclf.publishing.stores import Address

_KINDS = {"datasets": "dataset", "spaces": "space"}


class Hub(Address):
    """A repository of the hub. Files are sent as they are written, and become visible together, in one commit, by `finish`.

    What the hub has already, by its SHA-256, is not sent again, also after an interruption. The hub's own settings hold: HF_TOKEN,
    HF_ENDPOINT.
    """

    def __init__(self, url: str):
        """
        Raises:
          UserError: for an address that is no repository's.
        """
        self._url = url.rstrip("/")
        parts = [part for part in url.removeprefix("hf://").split("/") if part]
        self._kind = _KINDS.get(parts[0], "model")
        names = parts[1:] if parts[0] in _KINDS else parts
        if len(names) != 2 or not all(re.fullmatch(r"[\w.-]+", name) for name in names):
            raise UserError(f"{url!r} names no repository of the hub: write hf://USER/NAME, or hf://datasets/USER/NAME.")
        self._repository = "/".join(names)
        self._api = huggingface_hub.HfApi()
        self._lock = threading.Lock()
        self._pending: dict[str, CommitOperationAdd | CommitOperationDelete] = {}

    def sizes(self) -> dict[str, int]:
        with self._told("listed"):
            try:
                tree = self._api.list_repo_tree(self._repository, recursive=True, repo_type=self._kind)
                return {entry.path: entry.size for entry in tree if isinstance(entry, huggingface_hub.RepoFile)}
            except RepositoryNotFoundError:
                return {}

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._told("read"), tempfile.TemporaryDirectory(prefix="imgclf-hub-") as folder:
            file = huggingface_hub.hf_hub_download(self._repository, path, repo_type=self._kind, local_dir=folder, library_name="imgclf")
            with open(file, "rb") as opened:
                while chunk := opened.read(1 << 20):
                    yield chunk

    def write(self, path: str, source: Path | bytes) -> None:
        operation = CommitOperationAdd(path, source if isinstance(source, bytes) else str(source))
        with self._lock:
            self._pending[path] = operation

    def remove(self, path: str) -> None:
        with self._lock:
            self._pending[path] = CommitOperationDelete(path)

    def finish(self) -> None:
        if not self._pending:
            return
        with self._told("written"):
            self._api.create_repo(self._repository, repo_type=self._kind, exist_ok=True)
            there = self.sizes()
            operations = [one for path, one in self._pending.items() if isinstance(one, CommitOperationAdd) or path in there]
            self._api.create_commit(self._repository, operations, commit_message="A bundle by imgclf", repo_type=self._kind)
        self._pending.clear()

    def _reason(self, error: Exception, done: str) -> str:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        if status in (401, 403):
            return f"{self.place} can't be {done}: the hub asks for a token that may do so; set HF_TOKEN, or run hf auth login."
        return super()._reason(error, done)
