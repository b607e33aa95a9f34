"""A bounded queue in front of an engine: images are decoded in threads, and computed in batches by as many of them as pays.

The thread that has decoded the last image that has arrived computes, too, if the engine is free, and goes on with what came meanwhile; so
a lone image changes threads no more often than without a queue. The engine never waits for images that may come: batches grow with the load
by themselves. Which batch sizes are worth their padding, and how many batches to compute at once, is measured when the model is
warmed. Where larger batches are cheaper per image, as on a GPU, one is computed at a time, and waits a few milliseconds for images that are
being decoded already, never for ones that may come. On a CPU a thread per core keeps all cores busy: what one network computes in parallel
would wait for a core that decodes. Each of them takes no more than its share of what is under way, so that no image waits behind a batch
several times as large as those of its neighbours: the slowest answers then wait hardly longer than the mean of all.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
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
_CLOSE = 1.1  # times that differ by no more than this factor are as good
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
        self._worth = self._worthwhile()
        least = [0.0]
        self._first = [0]
        for n in range(1, self.largest + 1):
            costs = {size: self.seconds[size] + least[max(0, n - size)] for size in self._worth}
            least.append(min(costs.values()))
            self._first.append(next(size for size, cost in costs.items() if cost == least[n]))

    def _worthwhile(self) -> list[int]:
        """The sizes of which an image costs clearly less than of every smaller one: the others answer no sooner, and keep more waiting."""
        worth: list[int] = []
        for size, cost in self.seconds.items():
            if not worth or _CLOSE * cost / size < self.seconds[worth[-1]] / worth[-1]:
                worth.append(size)
        return worth

    def first(self, waiting: int) -> int:
        """The size of the next batch when so many images wait."""
        return self._first[min(waiting, self.largest)]

    @property
    def worth_waiting(self) -> bool:
        """Whether an image of the largest batch costs less than a quarter of one by itself, as on a GPU."""
        return self.seconds[self.largest] / self.largest < 0.25 * self.seconds[min(self.seconds)] / min(self.seconds)

    @property
    def best(self) -> int:
        """The size of which an image costs least: no more need to wait."""
        return self._worth[-1]

    def per_image(self) -> float:
        """Seconds per image when many wait."""
        return min(cost / size for size, cost in self.seconds.items())


class Batcher:
    """An engine with its queue. All but the work itself happens in the event loop's thread."""

    def __init__(self, engine: Engine, decoders: ThreadPoolExecutor, *, threads: int = 1, queue: int, max_batch: int, max_wait: float):
        """
        Args:
          engine: what computes.
          decoders: the threads that decode; shared among models.
          threads: how many these are.
          queue: images that may wait or be computed at once.
          max_batch: the largest batch.
          max_wait: seconds that a batch waits at most for images that are being decoded.
        """
        self.engine = engine
        self.admitted = 0  # images that are not answered yet
        self.on_batch: Callable[[int, float], None] = lambda images, seconds: None  # called in the engine's thread
        self._decoders, self._threads, self._queue, self._max_batch, self._max_wait = decoders, threads, queue, max_batch, max_wait
        self._waiting: collections.deque[_Job] = collections.deque()
        self._decoding = 0  # images that are not decoded yet
        self._untouched = 0  # of these, that no thread has begun with
        self._computing = 0  # threads that compute, `lanes` at most
        self.lanes = 1
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
        measured = Sizes(seconds)
        self.lanes = 1 if measured.worth_waiting or count > 1 else self._best_lanes()
        self.sizes = measured

    def _best_lanes(self) -> int:
        """The most threads, up to those that decode, that together compute single images about as quickly as any other number does."""
        most = self._threads
        counts = sorted({min(2**power, most) for power in range(most.bit_length() + 1)})
        seconds = dict.fromkeys(counts, math.inf)
        blank = self.engine.blank(1)
        for _, lanes in itertools.product(range(_ROUNDS), counts):
            with ThreadPoolExecutor(lanes) as threads:
                started = time.perf_counter()
                list(threads.map(self.engine.answers, [blank] * (2 * most)))
                seconds[lanes] = min(seconds[lanes], time.perf_counter() - started)
        return max(lanes for lanes in counts if seconds[lanes] <= _CLOSE * min(seconds.values()))

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
            self._untouched += len(jobs)
        for job in jobs:
            self._decoders.submit(self._decode, job)
        return [job.answered for job in jobs]

    def _decode(self, job: _Job) -> None:
        """In one of the decoders' threads."""
        assert self.sizes is not None
        with self._changed:
            self._untouched -= 1
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
            enough = self._untouched == 0 or len(self._waiting) >= min(self.sizes.best, self._share)  # else this thread decodes first
            leads = bool(self._waiting) and self._computing < self.lanes and enough
            self._computing += leads
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
        """Takes the next batch, with the size that it is padded to; None when nothing waits: this thread then computes no more."""
        assert self.sizes is not None
        with self._changed:
            if self.sizes.worth_waiting:
                self._changed.wait_for(self._nothing_to_wait_for, self._max_wait)
            gone = [job for job in self._waiting if job.answered.cancelled()]
            for job in gone:
                self._waiting.remove(job)
            if gone:
                self._tell([(job, "") for job in gone])
            if not self._waiting:
                self._computing -= 1
                return None
            size = self.sizes.first(min(len(self._waiting), self._share))
            return size, [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]

    @property
    def _share(self) -> int:
        """The most images that a thread takes at once: where several compute, each half of its part, as others are being decoded.

        A thread that takes all that waits has answers for many late, while those that another takes meanwhile come back, and again are
        few: sizes, and with them waiting times, drift apart.
        """
        return self._queue if self.lanes == 1 else max(1, self.admitted // (2 * self.lanes))

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
