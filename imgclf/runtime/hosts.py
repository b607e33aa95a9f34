"""The processes of one training, usually one per host: which of them this is, and what they hand each other outside of computations.

Nothing here imports JAX before `connect` is called, as `data` shares its work among hosts and must stay quick to import. What is handed
over goes through the key-value store of JAX's coordination service, which process 0 keeps; so it needs no device, and a process that
waits here can be ended from another thread when a partner is lost (`runtime.partners`).
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from imgclf.errors import UserError

HEARTBEAT_SECONDS = 40  # without a sign of life for so long, a process counts as lost
PREFIX = "imgclf"  # of all keys
_WAIT_MS = 1000  # at a time, so that Ctrl-C is answered
_CHUNK = 8 << 20  # bytes of a value

Result = TypeVar("Result")


class Hosts:
    """This process among the processes of a training. All of them make the same calls in the same order.

    Attributes:
      index: of this process, from 0.
      count: of the processes.
      client: JAX's client of the coordination service; None where there is one process.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index, self.count, self.client = index, count, client
        self._calls = 0

    def gather(self, payload: bytes) -> list[bytes]:
        """Returns what each process has given, in the order of the processes; waits for the last one as long as it takes."""
        return [payload] if self.count == 1 else self._exchange(payload, range(self.count))

    def broadcast(self, payload: bytes) -> bytes:
        """Returns what process 0 has given; the others' payload is not looked at."""
        return payload if self.count == 1 else self._exchange(payload if self.index == 0 else None, [0])[0]

    def wait(self) -> None:
        """Returns when all processes are here."""
        self.gather(b"")

    def first(self, work: Callable[[], Result]) -> Result:
        """Does work on process 0 first, so that others who share its cache find what it has kept; returns each one's own result."""
        if self.index == 0:
            done = work()
            self.wait()
            return done
        self.wait()
        return work()

    def gather_table(self, table: pd.DataFrame) -> list[pd.DataFrame]:
        """`gather` for tables."""
        packed = io.BytesIO()
        table.to_parquet(packed, index=False)
        return [pd.read_parquet(io.BytesIO(part)) for part in self.gather(packed.getvalue())]

    def any_of(self, flags: np.ndarray) -> np.ndarray:
        """Where any process has True: bool [n] from bool [n]."""
        parts = [np.frombuffer(part, np.uint8) for part in self.gather(np.packbits(flags).tobytes())]
        return np.unpackbits(np.bitwise_or.reduce(parts), count=len(flags)).astype(bool)

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of rows that are worked through together, int64 [n]: every `count`-th one."""
        return rows[self.index :: self.count]

    def differing(self, payload: bytes) -> int | None:
        """The first process whose payload is not that of process 0; None where all are equal."""
        digests = self.gather(hashlib.sha256(payload).digest())
        return next((index for index, digest in enumerate(digests) if digest != digests[0]), None)

    def check_same_rows(self, rows: Sequence[str], what: str) -> None:
        """Raises a UserError on all processes, unless all have given the same rows.

        Args:
          rows: texts that begin with an image's name and a tab.
          what: the rows are, such as "images".
        """
        if self.count == 1:
            return
        text = "\n".join(rows).encode("utf-8", "surrogateescape")
        other = self.differing(text)
        if other is None:
            return
        first = self.broadcast(text).decode("utf-8", "surrogateescape").split("\n")
        differences = sorted(set(first) ^ set(rows))
        example = differences[0].partition("\t")[0] if differences else "their order"
        count, example = self.gather(f"{len(rows):,}\n{example}".encode("utf-8", "backslashreplace"))[other].decode().split("\n")
        raise UserError(
            f"The hosts do not have the same {what}: process 0 has {len(first):,}, process {other} has {count}, and they differ in "
            f"{example}, for one. Give all hosts the same data and the same command, best by a folder that all of them see."
        )

    def _exchange(self, payload: bytes | None, senders: Iterable[int]) -> list[bytes]:
        """Sends this process's payload, if it has one, and returns those of the senders. The last one to have read removes them."""
        self._calls += 1
        folder = f"{PREFIX}/exchange/{self._calls}"
        if payload is not None:
            for part in range(-(-len(payload) // _CHUNK)):
                self.client.key_value_set_bytes(f"{folder}/{self.index}/{part}", payload[part * _CHUNK : (part + 1) * _CHUNK])
            self.client.key_value_set_bytes(f"{folder}/{self.index}/size", str(len(payload)).encode())
        received = []
        for sender in senders:
            size = int(self._wait_for(f"{folder}/{sender}/size"))
            parts = [self._wait_for(f"{folder}/{sender}/{part}") for part in range(-(-size // _CHUNK))]
            received.append(payload if sender == self.index and payload is not None else b"".join(parts))
        if self.client.key_value_increment(f"{PREFIX}/read/{self._calls}", 1) == self.count:
            self.client.key_value_delete(folder)
        return received

    def _wait_for(self, key: str) -> bytes:
        while True:
            try:
                value: bytes = self.client.blocking_key_value_get_bytes(key, _WAIT_MS)
                return value
            except RuntimeError as error:  # JAX's own class derives from it
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise


_current = Hosts()


def current() -> Hosts:
    """This process among those that `connect` has joined; without that it is the only one."""
    return _current


def connect(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> Hosts:
    """Starts `jax.distributed` before any other use of JAX.

    SLURM, Open MPI and TPU pods describe themselves; elsewhere all three arguments are needed. `IMGCLF_DISTRIBUTED_TIMEOUT` says for how
    many seconds to wait for the others (300), `IMGCLF_HEARTBEAT_TIMEOUT` after how many without a sign of life one counts as lost (40).

    Args:
      coordinator: `host:port` of process 0; "" = found out from the cluster.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      UserError: where the cluster can't be found out, or the coordinator doesn't answer.
    """
    import jax
    from jax._src import distributed  # the only way to the client; orbax takes it, too

    global _current
    explicit: dict[str, Any] = {}
    if coordinator:
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                f"--coordinator={coordinator} needs --num_processes and --process_id (0 to num_processes - 1); "
                f"got {num_processes} and {process_id}."
            )
        explicit = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    timeouts: dict[str, Any] = {
        "initialization_timeout": int(os.environ.get("IMGCLF_DISTRIBUTED_TIMEOUT", "300")),
        "heartbeat_timeout_seconds": int(os.environ.get("IMGCLF_HEARTBEAT_TIMEOUT", HEARTBEAT_SECONDS)),
    }
    try:
        jax.distributed.initialize(**explicit, **timeouts)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed could not start ({str(error).splitlines()[0]}); outside SLURM and TPU pods give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=K."
        ) from error
    state = distributed.global_state
    _current = Hosts(state.process_id, state.num_processes, state.client)
    return _current
