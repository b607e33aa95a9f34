"""The processes of one training end together: what ends one of them is told to the others, which would otherwise wait for it for ever.

- One that fails says so in the key-value store; a thread in each process looks there every second, prints the sentence, and ends its
  process with the same exit code, whatever its main thread waits for.
- One that is killed, or hangs as a whole, says nothing. JAX's service misses its heartbeats and aborts the other processes from a thread
  of its own; that abort is turned into a sentence and the exit code `LOST`.
- SIGTERM during the training loop is JAX's, which has all processes save one step (`training.stopping`). Before and after the loop there is
  nothing to save, and JAX would swallow it: there the thread ends all processes.
"""

import contextlib
import ctypes
import errno
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from imgclf.errors import UserError
from imgclf.runtime.hosts import HEARTBEAT_SECONDS, PREFIX, Hosts, connect

LOST = 75  # EX_TEMPFAIL of sysexits.h: another process is lost; the same command continues from the last checkpoint
TERMINATED = 128 + signal.SIGTERM
_ENDED, _SEEN, _LEFT = f"{PREFIX}/ended", f"{PREFIX}/seen", f"{PREFIX}/left"
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # the key by which JAX tells all processes that one of them got SIGTERM
_LOOK_EVERY = 1.0  # seconds
_SEEN_WITHIN = 10.0  # seconds, that process 0 stays for the others to read why it ends

_in_loop = threading.Event()
_ends_with: list[int] = []  # the exit code of a process that is ending; JAX may abort it while the others leave before it
_handlers: list[object] = []  # C holds no reference to them


@contextlib.contextmanager
def training_loop() -> Iterator[None]:
    """Within the block SIGTERM is answered by the training loop; and after it, where the loop has done so and ends by an exception."""
    _in_loop.set()
    yield
    _in_loop.clear()


@contextlib.contextmanager
def together(agreed: type[BaseException], coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> Iterator[Hosts]:
    """Joins the other processes; ends all of them when one leaves the block by an exception, and lets none leave it before all are done.

    An exception ends the process here, as JAX would otherwise wait for the others when it shuts down: a `UserError` with its sentence and
    the exit code 2, Ctrl-C with 130, any other with its traceback and 1.

    Args:
      agreed: the exception that all processes raise together, which passes.
      coordinator, num_processes, process_id: see `hosts.connect`.
    """
    _tell_abort()
    hosts = connect(coordinator, num_processes, process_id)
    watch = _Watch(hosts)
    watch.start()
    try:
        yield hosts
        _leave_together(hosts, 0)  # process 0 may still write the report, longer than JAX waits for it
    except agreed as error:
        _leave_together(hosts, 128 + getattr(error, "signum", 0))  # process 0 may still send the run to a URL
        raise
    except BaseException as error:
        if _is_computations(error):
            # It fails at once where a partner's connection breaks; who is lost, JAX knows when it misses the heartbeats.
            time.sleep(1.5 * int(os.environ.get("IMGCLF_HEARTBEAT_TIMEOUT", HEARTBEAT_SECONDS)))
        code, told = _ending(error)
        _leave(hosts, code, told)
    finally:
        watch.done.set()
        watch.join()


def _is_computations(error: BaseException) -> bool:
    """Whether a computation has failed: with JAX's own exception, or, where the call itself runs it, a ValueError with XLA's status."""
    if isinstance(error, ValueError):
        return re.match("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ", str(error)) is not None
    return isinstance(error, RuntimeError) and type(error).__module__.startswith("jax")


def _ending(error: BaseException) -> tuple[int, str]:
    """Tells the user of an error; returns the exit code, and the sentence for the other processes."""
    if isinstance(error, UserError):
        print(f"Error: {error}", file=sys.stderr)
        return 2, str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        told = f"The disk is full ({error.filename or 'while writing'}); free some space and give the same command to continue."
        print(f"Error: {told}", file=sys.stderr)
        return 2, told
    if isinstance(error, KeyboardInterrupt):
        print("Interrupted. Give the same command to continue.", file=sys.stderr)
        return 128 + signal.SIGINT, "it was interrupted by Ctrl-C; give the same command to continue."
    traceback.print_exception(error)
    return 1, f"{type(error).__name__}: {error}"


def _leave_together(hosts: Hosts, code: int) -> None:
    """Waits until all are here, after which nothing is left to be done; process 0, with whom JAX's service goes, leaves last.

    The service may be gone before another process has shut down its part of JAX, which JAX answers with an abort: that one then ends
    with `code`, as it would have.
    """
    hosts.wait()
    sys.stdout.flush()
    _ends_with.append(code)
    with contextlib.suppress(RuntimeError):
        if hosts.index:
            hosts.client.key_value_set(f"{_LEFT}/{hosts.index}", "")
        else:
            _wait_for_all(hosts, _LEFT)


def _wait_for_all(hosts: Hosts, key: str) -> None:
    """Waits until all but this process have set the key, for some seconds at most."""
    until = time.monotonic() + _SEEN_WITHIN
    while time.monotonic() < until and len(hosts.client.key_value_dir_get(key)) < hosts.count - 1:
        time.sleep(_LOOK_EVERY / 10)


def _leave(hosts: Hosts, code: int, told: str) -> None:
    """Tells the others, and ends this process. Process 0, who keeps what it has told, stays until they have read it."""
    _ends_with.append(code)
    with contextlib.suppress(RuntimeError):  # another one was quicker, or the service is gone
        hosts.client.key_value_set(f"{_ENDED}/first", f"{hosts.index}\n{code}\n{told}")
    with contextlib.suppress(RuntimeError):
        if hosts.index:
            hosts.client.key_value_set(f"{_SEEN}/{hosts.index}", "")  # where all have found a mistake, 0 need not wait for this one
    with contextlib.suppress(RuntimeError):
        if hosts.index == 0:
            _wait_for_all(hosts, _SEEN)
    _end(code)


def _end(code: int) -> None:
    """Ends the process now: the main thread may wait in a computation for a process that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Watch(threading.Thread):
    """Looks whether another process has ended, or all are to end."""

    def __init__(self, hosts: Hosts):
        super().__init__(name="partners", daemon=True)
        self._hosts, self.done = hosts, threading.Event()

    def run(self) -> None:
        while not self.done.wait(_LOOK_EVERY):
            with contextlib.suppress(RuntimeError):  # the service is gone: JAX ends this process, too
                self._look()

    def _look(self) -> None:
        hosts = self._hosts
        for _, value in hosts.client.key_value_dir_get(_ENDED):
            index, code, told = value.split("\n", 2)
            if int(index) != hosts.index:
                _ends_with.append(int(code))  # process 0, and JAX's service with it, may be gone as soon as it knows that this was read
                print(f"Process {index} of {hosts.count} has ended, and so this one does: {told}", file=sys.stderr)
                hosts.client.key_value_set(f"{_SEEN}/{hosts.index}", "")
                _end(int(code))
        if not _in_loop.is_set() and self._is_terminated():
            print("Stopped outside of the training loop: there was nothing to save. Give the same command to continue.", file=sys.stderr)
            _leave(hosts, TERMINATED, "it was asked to stop (SIGTERM); give the same command to continue.")

    def _is_terminated(self) -> bool:
        try:
            self._hosts.client.key_value_try_get(_NOTICE)
        except RuntimeError:  # no such key
            return False
        return True


def _tell_abort() -> None:
    """Turns JAX's abort into a sentence and an exit code, for the rest of the process: shutting down may fail by a lost partner, too.

    Python's own handlers run in the main thread, which an abort never comes back to. This one is called by the aborting thread itself.
    """

    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])

    def on_abort(signum: int) -> None:
        del signum
        if _ends_with:
            os._exit(_ends_with[0])
        told = (
            "JAX has ended this process, see above; most likely another process of the training is gone, hangs or has never come. "
            f"What was saved last is kept. To continue from there, give all processes their commands again; this one's: {command}\n"
        )
        os.write(2, told.encode())
        os._exit(LOST)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, handler)
    _handlers.append(handler)
