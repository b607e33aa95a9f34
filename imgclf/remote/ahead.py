"""Read-ahead: what will be read next is fetched while the images before it are decoded, within a bound on bytes.

One window for the whole process: threads that make batches share it. Its bound counts bytes that are under way or waiting to be taken. An
image that is asked for before its turn is fetched at once, by the thread that needs it, so that nobody waits for a window that others
fill; at most one image per thread is beyond the bound.
"""

import collections
import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from imgclf.remote import places

MOST_BYTES = 128 << 20
_UNKNOWN = 1 << 20  # bytes that a file of unknown size is taken for until it is there


class _Item:
    """Something that will be read."""

    def __init__(self, key: Hashable, fetch: Callable[[], bytes], size: int):
        self.key, self.fetch, self.size = key, fetch, size if size >= 0 else _UNKNOWN
        self.future: Future[bytes] | None = None  # None = not begun yet


class Window:
    """Fetches what is coming, in the order in which it was announced.

    Attributes:
      held: bytes that are under way, or fetched and not taken yet.
      peak: the most that this has been.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, threads: int = places.AT_ONCE):
        self.held = self.peak = 0
        self._most, self._threads = most_bytes, threads
        self._lock = threading.RLock()
        self._coming: collections.deque[_Item] = collections.deque()  # announced, not begun
        self._known: dict[Hashable, collections.deque[_Item]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @contextlib.contextmanager
    def announced(self, items: Sequence[tuple[Hashable, Callable[[], bytes], int]]) -> Iterator[None]:
        """While the block runs, these are fetched ahead: a key, what fetches it, and its bytes (-1 = unknown), in the order of reading.

        What the block leaves is forgotten at its end.
        """
        mine = [_Item(*item) for item in items]
        with self._lock:
            self._coming.extend(mine)
            for item in mine:
                self._known.setdefault(item.key, collections.deque()).append(item)
            self._begin()
        try:
            yield
        finally:
            with self._lock:
                for item in mine:
                    if item in self._known.get(item.key, ()):
                        self._drop(item)
                self._begin()

    def take(self, key: Hashable) -> bytes | None:
        """What was announced by this key, once it is there; None where it was not, or has not been begun: then the caller reads it.

        Likewise where another thread's block, which had announced it, ends before it is begun.

        Raises:
          whatever fetching it raised.
        """
        with self._lock:
            item = next(iter(self._known.get(key, ())), None)
            if item is None:
                return None
            if item.future is None:
                self._drop(item)
                return None
        try:
            return item.future.result()
        except CancelledError:
            return None
        finally:
            with self._lock:
                if item in self._known.get(key, ()):  # two threads may wait for one
                    self._drop(item)
                self._begin()

    def _drop(self, item: _Item) -> None:
        """Forgets an item; the lock is held."""
        entries = self._known[item.key]
        entries.remove(item)
        if not entries:
            del self._known[item.key]
        if item.future is None:
            self._coming.remove(item)
        elif item.future.cancel() or item.future.done():
            self.held -= item.size
        else:  # it is under way, and counts until it ends
            item.future.add_done_callback(lambda _: self._release(item.size))

    def _release(self, size: int) -> None:
        with self._lock:
            self.held -= size
            self._begin()

    def _fetch(self, item: _Item) -> bytes:
        data = item.fetch()
        with self._lock:
            self.held += len(data) - item.size
            self.peak = max(self.peak, self.held)
            item.size = len(data)
        return data

    def _begin(self) -> None:
        """Begins as many items as fit; the lock is held."""
        while self._coming and (not self.held or self.held + self._coming[0].size <= self._most):
            item = self._coming.popleft()
            self.held += item.size
            self.peak = max(self.peak, self.held)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="read-ahead")
            item.future = self._pool.submit(self._fetch, item)


WINDOW = Window()
