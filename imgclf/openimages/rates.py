"""How often a host is asked: each has a token bucket, and the pauses that it asks for."""

import threading
import time
from urllib.parse import urlsplit


def site(url: str) -> str:
    """Returns the domain that a limit applies to: c1.staticflickr.com and farm6.staticflickr.com are one site."""
    host = (urlsplit(url).hostname or "").lower()
    parts = host.split(".")
    return host if len(parts) < 3 or parts[-1].isdigit() or ":" in host else ".".join(parts[-2:])


class HostRates:
    """Token buckets by `site`, shared by all threads (as a virtual schedule: ITU-T I.371's generic cell rate algorithm)."""

    def __init__(self, rate: float, burst: float | None = None):
        """Sets the limit.

        Args:
          rate: requests per second and site; 0 = unlimited.
          burst: requests that may come at once after a rest; None = those of one second.
        """
        self._interval = 1 / rate if rate > 0 else 0.0
        self._tolerance = self._interval * ((burst if burst is not None else max(1.0, rate)) - 1)
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}  # when the bucket would be full again
        self._closed: dict[str, float] = {}  # until when the site asked not to be asked

    def acquire(self, url: str, stop: threading.Event) -> None:
        """Waits for the right to send one request; returns early when `stop` is set."""
        name = site(url)
        with self._lock:
            due = max(time.monotonic(), self._due.get(name, 0.0))
            self._due[name] = due + self._interval
            start = due - self._tolerance
        while not stop.is_set():
            with self._lock:
                wait = max(start, self._closed.get(name, 0.0)) - time.monotonic()
            if wait <= 0:
                return
            stop.wait(wait)

    def pause(self, url: str, seconds: float) -> None:
        """Lets nobody ask this site for so many seconds."""
        with self._lock:
            self._closed[site(url)] = max(self._closed.get(site(url), 0.0), time.monotonic() + seconds)
