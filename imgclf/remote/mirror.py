"""The folder of a run at a URL: a working copy on this machine, and what makes both the same.

orbax writes to gs:// and s3:// by itself (0.12: tensorstore for arrays, fsspec for the rest), but then a checkpoint becomes visible file by
file, s3:// knows no move that would make it whole at once, and all else that a run writes (metrics, tables, pages) is for this machine's
disks. So a run works in a folder here, and after each checkpoint one thread sends what is new. The manifest goes last: it names the files
of the checkpoints with their SHA-256, so that a run that was killed while it sent is continued from the last whole state. Files are taken
as they were at the checkpoint: the large ones by hard links, the others by copies, as logs grow and a file that is written again in its
place changes under its links, too. Training does not wait for them.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.errors import UserError
from imgclf.remote import copies, listing, places, retrying, transfer
from imgclf.remote.copies import MANIFEST, Manifest

WRITER = ".writer.json"  # at the URL: which process writes there
STATE = ".mirror.json"  # in the working copy: the manifests that it comes from
_RENEWED = 30.0  # seconds after which the writer says again that it is there
_STALE = 150.0  # seconds after which a writer that has not said so is taken for dead
_LINKED = "checkpoints"  # the folder whose files nobody writes twice

_active: dict[Path, "Mirror"] = {}


def working_copy(url: str) -> Path:
    """The folder on this machine in which the run at a URL works, see `copies.place_of`."""
    return copies.place_of("workdirs", url.rstrip("/"))


def saved(folder: Path) -> None:
    """Says that the run in this folder, or the one that it lies in, has reached a state worth keeping; does nothing for a run on disk only.

    Raises:
      UserError: where what was to be sent before could not be.
    """
    for place in (folder, *folder.parents):
        if place in _active:
            _active[place].send()


@contextlib.contextmanager
def mirrored(folder: Path, url: str, tell: Callable[[str], object]) -> Iterator[None]:
    """While the block runs, `folder` is the working copy of `url`: filled from there first, sent there at each `saved` and at the end.

    Args:
      folder: see `working_copy`.
      url: of the run.
      tell: is given sentences for the user.

    Raises:
      UserError: where another process writes there, or the URL can't be read or written; what is in the working copy stays.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / ".lock"
    with files.locked(lock, f"Another process on this machine writes to {url}: wait for it, or choose another --workdir."):
        mirror = Mirror(folder, url, tell)
        mirror.begin()
        _active[folder] = mirror
        try:
            yield
        except BaseException:
            with contextlib.suppress(UserError):  # the error that ends the run is the one to tell; the working copy is complete
                mirror.finish()
            raise
        else:
            mirror.finish()
        finally:
            del _active[folder]
            mirror.close()


@dataclasses.dataclass
class _Sent:
    """A file at the URL."""

    size: int
    mtime_ns: int
    sha256: str


class Mirror:
    """Keeps a folder at a URL the same as one here. One thread sends; a state that comes meanwhile takes the place of a waiting one."""

    def __init__(self, folder: Path, url: str, tell: Callable[[str], object]):
        self.folder, self.url = folder, url.rstrip("/")
        self._tell = tell
        self._me = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._known: list[str] = []  # ids of manifests that the working copy contains
        self._sent: dict[str, _Sent] = {}
        self._error: UserError | None = None
        self._waiting: Path | None = None
        self._changed = threading.Condition()
        self._busy = self._over = False
        self._thread = threading.Thread(target=self._send_all, name="mirror", daemon=True)

    def begin(self) -> None:
        """Becomes the one writer, and fills the working copy with the newest whole state, unless it is that state or comes after it."""
        shutil.rmtree(self._aside, ignore_errors=True)  # of a process that was killed
        self._claim()
        try:
            self._fill()
        except BaseException:
            self._release()
            raise
        self._thread.start()

    def send(self) -> None:
        """Has the folder sent as it is now.

        Raises:
          UserError: where sending has failed before.
        """
        self._check()
        if not (self.folder / "config.json").exists():  # a start that has failed is no run
            return
        snapshot = self._snapshot()
        with self._changed:
            old, self._waiting = self._waiting, snapshot
            self._changed.notify_all()
        if old is not None:
            shutil.rmtree(old)

    def finish(self) -> None:
        """Sends the last state, and waits until it is there.

        Raises:
          UserError: where it can't be sent.
        """
        self.send()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or (self._waiting is None and not self._busy))
        self._check()

    def close(self) -> None:
        """Ends the thread, after the file that it is sending, and gives the place free."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()
        shutil.rmtree(self._aside, ignore_errors=True)
        with contextlib.suppress(UserError, OSError):
            self._release()

    @property
    def _aside(self) -> Path:
        return self.folder.parent / "sending"

    def _check(self) -> None:
        if self._error is not None:
            raise UserError(
                f"{str(self._error).rstrip('.')}. The run is whole in {self.folder} on this machine: the same command continues from "
                "there, and sends it."
            ) from self._error

    def _claim(self) -> None:
        """Waits until no other writer has said lately that it is there, and says so itself."""
        waited = False
        while (other := self._writer()) is not None and other.get("id") != self._me["id"]:
            here = other.get("host") == self._me["host"] and not _is_alive(other.get("pid"))
            age = time.time() - float(other.get("time", 0))
            if here or age > _STALE:
                break
            if not waited:
                self._tell(
                    f"{self.url} was written {age:.0f} s ago by process {other.get('pid')} on {other.get('host')}: waiting for its end."
                )
                waited = True
            first = other.get("time")
            retrying.wait(min(_RENEWED, max(1.0, _STALE - age)))
            again = self._writer()
            if again is not None and again.get("time") != first:
                raise UserError(
                    f"Another process writes to {self.url} ({other.get('pid')} on {other.get('host')}): wait for it, or choose another "
                    "--workdir."
                )
        self._renew()
        if (now := self._writer()) is None or now.get("id") != self._me["id"]:
            raise UserError(f"Another process has begun to write to {self.url}: wait for it, or choose another --workdir.")

    def _writer(self) -> dict[str, Any] | None:
        found = copies.read_json(places.join(self.url, WRITER))
        return found if isinstance(found, dict) else None

    def _renew(self) -> None:
        with _as_users():
            transfer.write(places.join(self.url, WRITER), json.dumps(self._me | {"time": time.time()}).encode())

    def _release(self) -> None:
        transfer.remove(places.join(self.url, WRITER))

    def _fill(self) -> None:
        manifest = copies.manifest_at(self.url)
        if manifest is None:
            if (self.folder / "config.json").exists():
                self._tell(f"{self.url} holds no run yet; the working copy {self.folder} is continued: remove it to start anew.")
            return
        state = self.folder / STATE
        known = json.loads(state.read_text(encoding="utf-8"))["known"] if state.exists() else []
        if manifest.id in known:
            self._known = known
            self._sent = {name: _Sent(entry["bytes"], -1, entry["sha256"]) for name, entry in manifest.files.items()}
            return
        self._tell(f"Fetching the run at {self.url} ({len(manifest.files)} files).")
        copies.fetch(self.url, manifest, self.folder)
        self._known = [manifest.id]
        files.write_json(state, {"known": self._known})
        self._sent = {name: _Sent(entry["bytes"], -1, entry["sha256"]) for name, entry in manifest.files.items()}

    def _snapshot(self) -> Path:
        """The folder as it is now: the files of checkpoints linked, all others copied."""
        target = self._aside / uuid.uuid4().hex
        target.mkdir(parents=True)
        for name in copies.names_in(self.folder):
            here, there = self.folder / name, target / name
            there.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # what goes while this looks is no part of the state
                os.link(here, there) if name.startswith(f"{_LINKED}/") else shutil.copy2(here, there)
        return target

    def _send_all(self) -> None:
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda: self._over or self._waiting is not None, timeout=_RENEWED)
                if self._over and self._waiting is None:
                    return
                snapshot, self._waiting = self._waiting, None
                self._busy = snapshot is not None
            try:
                if snapshot is not None:
                    self._send(snapshot)
                elif not came:
                    self._renew()
            except UserError as error:
                self._error = error
            except OSError as error:
                self._error = UserError(f"{self.url} can't be written ({error}).")
            finally:
                if snapshot is not None:
                    shutil.rmtree(snapshot, ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
            if self._error is not None:
                return

    def _send(self, snapshot: Path) -> None:
        """Sends what is new, then the manifest, then removes what it no longer names."""
        writer = self._writer()
        if writer is not None and writer.get("id") != self._me["id"]:
            raise UserError(f"Another process has begun to write to {self.url} ({writer.get('pid')} on {writer.get('host')}).")
        self._renew()
        sent, new = dict[str, _Sent](), list[str]()
        for name in copies.names_in(snapshot):
            path = snapshot / name
            status, before = path.stat(), self._sent.get(name)
            if before is not None and (before.size, before.mtime_ns) == (status.st_size, status.st_mtime_ns):
                sent[name] = before
                continue
            sha256 = copies.sha256_of(path)
            if before is None or before.sha256 != sha256:
                new.append(name)
            sent[name] = _Sent(status.st_size, status.st_mtime_ns, sha256)
        for _ in listing.at_once(lambda name: self._put(snapshot, name), new):
            pass
        manifest = Manifest(uuid.uuid4().hex, {name: {"bytes": one.size, "sha256": one.sha256} for name, one in sorted(sent.items())})
        self._known = [*self._known[-3:], manifest.id]
        if self.folder.exists():
            files.write_json(self.folder / STATE, {"known": self._known})  # before it is there: it is this copy's, whatever happens now
        with _as_users():
            transfer.write(places.join(self.url, MANIFEST), manifest.to_bytes())
            for _ in listing.at_once(lambda name: transfer.remove(places.join(self.url, name)), self._sent.keys() - sent.keys()):
                pass
        self._sent = sent

    def _put(self, snapshot: Path, name: str) -> None:
        with _as_users():
            transfer.write(places.join(self.url, name), snapshot / name)


@contextlib.contextmanager
def _as_users() -> Iterator[None]:
    """Turns what stands in the way of writing into the user's error."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"{error}.") from error


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
