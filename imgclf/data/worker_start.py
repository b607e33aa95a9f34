"""How worker processes start, so that they use one core each and outlive nobody."""

import multiprocessing
import os
import signal
import threading

import cv2


def start() -> None:
    """To be called first of all in a worker process."""
    cv2.setNumThreads(0)  # there is a process for each core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
