"""A bounded queue in front of an engine: images are decoded in threads and computed in batches, by one thread at a time.

The thread that has decoded an image computes it, too, if the engine is free, and goes on with what has arrived meanwhile; so a lone image
changes threads no more often than without a queue. The engine never waits for a batch to fill while it could work: batches grow with the
load by themselves. Which batch sizes are worth their padding is measured when the model is warmed. Where larger batches are cheaper per
image, as on a GPU, it waits a few milliseconds for images that are being decoded already, never for ones that may come.
"""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from imgclf.data.images import ImageError
from imgclf.deploy.predictor import Answers
from imgclf.serving.engines import Engine
from imgclf.serving.limits import Refusal

_log = logging.getLogger("imgclf.serving")
_CLOSE = 1.1  # batches that take no more than this times the least time are as good: the smallest of them answers soonest
_ROUNDS, _SECONDS = 7, 5.0  # of measuring, whichever ends first; the quickest counts, as other programs may run beside it


class Answer(NamedTuple):
    """What is said of one image."""

    probabilities: np.ndarray  # float32 [C]
    none_of_these: float | None


@dataclasses.dataclass(eq=False)
class _Job:
    data: bytes
    answered: asyncio.Future[Answer | str]  # the answer, or why the image can't be read
    view: np.ndarray | None = None


Outcome = tuple[_Job, Answer | str | BaseException]


class Sizes:
    """The batch sizes that are compiled, and what each costs."""

    def __init__(self, seconds: dict[int, float]):
        """
        Args:
          seconds: size → time of a batch.
        """
        # A smaller batch that seems to take longer than a larger one was measured while something else ran: it counts as that one.
        self.seconds = {size: min(cost for other, cost in seconds.items() if other >= size) for size in sorted(seconds)}
        self.largest = max(seconds)
        least = [0.0]
        self._first = [0]
        for n in range(1, self.largest + 1):
            costs = {size: cost + least[max(0, n - size)] for size, cost in self.seconds.items()}
            least.append(min(costs.values()))
            self._first.append(next(size for size, cost in costs.items() if cost <= _CLOSE * least[n]))

    def first(self, waiting: int) -> int:
        """The size of the next batch when so many images wait."""
        return self._first[min(waiting, self.largest)]

    @property
    def worth_waiting(self) -> bool:
        """Whether an image of the largest batch costs less than three quarters of one by itself."""
        return self.seconds[self.largest] / self.largest < 0.75 * self.seconds[min(self.seconds)] / min(self.seconds)

    def per_image(self) -> float:
        """Seconds per image when many wait."""
        return min(cost / size for size, cost in self.seconds.items())


class Batcher:
    """An engine with its queue. All but the work itself happens in the event loop's thread."""

    def __init__(self, engine: Engine, decoders: ThreadPoolExecutor, *, queue: int, max_batch: int, max_wait: float):
        """
        Args:
          engine: what computes.
          decoders: the threads that decode; shared among models.
          queue: images that may wait or be computed at once.
          max_batch: the largest batch.
          max_wait: seconds that a batch waits at most for images that are being decoded.
        """
        self.engine = engine
        self.admitted = 0  # images that are not answered yet
        self.on_batch: Callable[[int, float], None] = lambda images, seconds: None  # called in the engine's thread
        self._decoders, self._queue, self._max_batch, self._max_wait = decoders, queue, max_batch, max_wait
        self._waiting: collections.deque[_Job] = collections.deque()
        self._decoding = 0
        self._computing = False
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.sizes: Sizes | None = None

    @property
    def ready(self) -> bool:
        """Whether it is warm."""
        return self.sizes is not None

    def warm(self, on_size: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Compiles and times each batch size; afterwards the first request is as quick as the others. May take a minute.

        Args:
          on_size: called with how many sizes are done, and of how many.
        """
        count = self.engine.device_count
        sizes = [count * 2**power for power in range(12) if 2**power <= max(1, self._max_batch // count)]
        for done, size in enumerate(sizes):
            on_size(done, len(sizes))
            self.engine.answers(self.engine.blank(size))
        seconds = dict.fromkeys(sizes, math.inf)
        started = time.perf_counter()
        for _ in range(_ROUNDS):
            for size in sizes:
                seconds[size] = min(seconds[size], _seconds(self.engine.answers, self.engine.blank(size)))
            if time.perf_counter() - started > _SECONDS:
                break
        self.sizes = Sizes(seconds)

    def submit(self, images: Sequence[bytes]) -> list[asyncio.Future[Answer | str]]:
        """Takes images; each future is its answer, or the reason why it can't be read. To be called in the event loop.

        Raises:
          Refusal: where the queue has no room for all of them, or the model is not warm yet.
        """
        if self.sizes is None:
            raise Refusal(503, "not_ready", "The model is being warmed up: come back in a few seconds.", retry_after=2)
        if self.admitted + len(images) > self._queue:
            wait = max(1, math.ceil(self.admitted * self.sizes.per_image()))
            raise Refusal(503, "queue_full", f"{self.admitted} images are waiting, and there is no room for more: come back.", wait)
        self._loop = asyncio.get_running_loop()
        jobs = [_Job(data, self._loop.create_future()) for data in images]
        self.admitted += len(jobs)
        with self._changed:
            self._decoding += len(jobs)
        for job in jobs:
            self._decoders.submit(self._decode, job)
        return [job.answered for job in jobs]

    def _decode(self, job: _Job) -> None:
        """In one of the decoders' threads."""
        outcome: str | BaseException = ""
        if not job.answered.cancelled():
            try:
                job.view = self.engine.view(job.data)
            except ImageError as error:
                outcome = str(error)
            except BaseException as error:  # such as too little memory: the request is told, and the server goes on
                outcome = error
        job.data = b""
        with self._changed:
            self._decoding -= 1
            if job.view is not None:
                self._waiting.append(job)
            leads = bool(self._waiting) and not self._computing
            self._computing |= leads
            self._changed.notify()
        if job.view is None:
            self._tell([(job, outcome)])
        if leads:
            self._work()

    def _work(self) -> None:
        """Computes until nothing waits."""
        while batch := self._take():
            size, jobs = batch
            started = time.perf_counter()
            try:
                outcomes: list[Outcome] = list(zip(jobs, self._compute(jobs, size), strict=True))
            except BaseException as error:  # the batch's requests are told, and the next batch may go well
                _log.exception("a batch of %d images failed", len(jobs))
                self._tell([(job, error) for job in jobs])
                continue
            self.on_batch(len(jobs), time.perf_counter() - started)
            self._tell(outcomes)

    def _take(self) -> tuple[int, list[_Job]] | None:
        """Takes the next batch, with the size that it is padded to; None when nothing waits, and the engine is free from then on."""
        assert self.sizes is not None
        with self._changed:
            if self.sizes.worth_waiting:
                self._changed.wait_for(self._nothing_to_wait_for, self._max_wait)
            gone = [job for job in self._waiting if job.answered.cancelled()]
            for job in gone:
                self._waiting.remove(job)
            if gone:
                self._tell([(job, "") for job in gone])
            self._computing = bool(self._waiting)
            if not self._waiting:
                return None
            size = self.sizes.first(len(self._waiting))
            return size, [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]

    def _nothing_to_wait_for(self) -> bool:
        return not self._decoding or len(self._waiting) >= self._max_batch

    def _compute(self, jobs: list[_Job], size: int) -> list[Answer]:
        views = [job.view for job in jobs if job.view is not None]
        batch = np.stack(views + views[:1] * (size - len(views)))
        found: Answers = self.engine.answers(batch)
        p_values = found.none_of_these
        return [Answer(found.probabilities[row], None if p_values is None else float(p_values[row])) for row in range(len(jobs))]

    def _tell(self, outcomes: list[Outcome]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        self.admitted -= len(outcomes)
        for job, outcome in outcomes:
            if job.answered.done():  # nobody waits for it any more
                continue
            if isinstance(outcome, BaseException):
                job.answered.set_exception(outcome)
            else:
                job.answered.set_result(outcome)


def _seconds(work: Callable[[np.ndarray], object], views: np.ndarray) -> float:
    started = time.perf_counter()
    work(views)
    return time.perf_counter() - started
