"""The queue in front of an engine, with an engine that is as slow as the test says."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data.images import ImageError
from imgclf.deploy.predictor import Answers
from imgclf.serving.batching import Batcher, Sizes
from imgclf.serving.limits import Refusal


class Engine:
    """Answers one byte's value as the probability of the second of two classes, when it may."""

    name, class_names, conformal, device_count, explainer = "test", ("low", "high"), None, 1, None

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = threading.Event()
        self.may.set()

    def view(self, data: bytes) -> np.ndarray:
        if not data:
            raise ImageError("empty", "0 bytes")
        return np.array([data[0]], np.uint8)

    def answers(self, views: np.ndarray) -> Answers:
        self.may.wait(10)
        self.batches.append(views[:, 0].tolist())
        if 255 in views:
            raise MemoryError("too large")
        high = views[:, 0].astype(np.float32) / 255
        return Answers(np.stack([1 - high, high], 1), [""] * len(views))

    def blank(self, count: int) -> np.ndarray:
        return np.zeros((count, 1), np.uint8)


def run(work: Callable, seconds: dict[int, float], queue: int = 100, lanes: int = 1) -> Engine:
    """Runs `work(batcher, engine)` in an event loop; `seconds` stand for the measured ones."""
    engine = Engine()

    async def running() -> None:
        with ThreadPoolExecutor(3) as decoders:
            batcher = Batcher(engine, decoders, queue=queue, max_batch=max(seconds), max_wait=0.5)
            batcher.sizes, batcher.lanes = Sizes(seconds), lanes
            await asyncio.wait_for(work(batcher, engine), 20)
        await asyncio.sleep(0)  # the threads have ended: what they told is heard now
        assert (batcher.admitted, batcher._decoding, batcher._computing) == (0, 0, 0)

    asyncio.run(running())
    return engine


CPU = {1: 0.01, 2: 0.02, 4: 0.04}  # batches buy nothing
GPU = {1: 0.01, 2: 0.01, 4: 0.011}


def test_each_image_gets_its_own_answer_whatever_the_batches():
    async def work(batcher, engine):
        futures = [future for start in range(0, 60, 3) for future in batcher.submit([bytes([start + k]) for k in range(3)])]
        for number, future in enumerate(futures):
            assert (await future).probabilities[1] == np.float32(number) / np.float32(255)

    for seconds in (CPU, GPU):
        assert sum(map(len, run(work, seconds).batches)) >= 60


def test_what_waits_is_computed_together_where_that_pays():
    async def work(batcher, engine):
        engine.may.clear()
        futures = batcher.submit([bytes([n]) for n in range(9)])
        await asyncio.to_thread(lambda: [None for _ in iter(lambda: batcher._decoding, 0)])
        engine.may.set()
        await asyncio.gather(*futures)

    assert {len(batch) for batch in run(work, CPU).batches} == {1}
    batches = run(work, GPU).batches
    assert max(map(len, batches)) == 4
    assert len(batches) <= 4


def test_of_several_threads_each_takes_its_share():
    async def work(batcher, engine):
        engine.may.clear()
        futures = batcher.submit([bytes([n]) for n in range(16)])
        await asyncio.to_thread(lambda: [None for _ in iter(lambda: batcher._decoding, 0)])
        engine.may.set()
        await asyncio.gather(*futures)

    cheaper_together = {1: 0.01, 2: 0.016, 4: 0.026, 8: 0.04, 16: 0.06}
    batches = run(work, cheaper_together, lanes=2).batches
    assert sum(map(len, batches)) == 16
    assert max(map(len, batches)) == 4
    assert max(map(len, run(work, cheaper_together, lanes=1).batches)) > 4


def test_a_damaged_image_is_told_and_the_others_go_on():
    async def work(batcher, engine):
        found = await asyncio.gather(*batcher.submit([b"\1", b"", b"\2"]))
        assert found[1] == "empty: 0 bytes"
        assert [one.probabilities.argmax() for one in (found[0], found[2])] == [0, 0]

    run(work, GPU)


def test_a_failed_batch_is_told_and_the_next_one_goes_well():
    async def work(batcher, engine):
        (failed,) = batcher.submit([b"\xff"])
        with pytest.raises(MemoryError):
            await failed
        (well,) = batcher.submit([b"\1"])
        assert (await well).probabilities[0] > 0.9

    run(work, CPU)


def test_a_full_queue_says_when_to_come_back():
    async def work(batcher, engine):
        engine.may.clear()
        futures = batcher.submit([b"\1"] * 4)
        with pytest.raises(Refusal) as refusal:
            batcher.submit([b"\1"] * 2)
        assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
        engine.may.set()
        await asyncio.gather(*futures)
        await asyncio.gather(*batcher.submit([b"\1"] * 5))

    run(work, CPU, queue=5)


def test_what_nobody_waits_for_is_not_computed():
    async def work(batcher, engine):
        engine.may.clear()
        first, *others = batcher.submit([bytes([n]) for n in range(1, 6)])
        await asyncio.to_thread(lambda: [None for _ in iter(lambda: batcher._decoding, 0)])
        for future in others[:-1]:
            future.cancel()
        engine.may.set()
        await asyncio.gather(first, others[-1])

    computed = [number for batch in run(work, CPU).batches for number in batch]
    assert computed == [1, 5]


def test_a_model_that_is_not_warm_refuses():
    with ThreadPoolExecutor(1) as decoders:
        batcher = Batcher(Engine(), decoders, queue=5, max_batch=8, max_wait=0)
        with pytest.raises(Refusal, match="warmed up"):
            batcher.submit([b"\1"])
        batcher.warm()
        assert batcher.sizes
        assert list(batcher.sizes.seconds) == [1, 2, 4, 8]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=5), st.integers(1, 40))
@settings(deadline=None)
def test_batches_cost_nearly_the_least_that_is_possible(costs, waiting):
    sizes = Sizes({2**power: cost for power, cost in enumerate(costs)})
    assert sorted(sizes.seconds.values()) == list(sizes.seconds.values())
    assert sizes.first(1) == 1

    def least(n: int) -> float:
        best = [0.0]
        for k in range(1, n + 1):
            best.append(min(cost + best[max(0, k - size)] for size, cost in sizes.seconds.items()))
        return best[n]

    total, left = 0.0, min(waiting, sizes.largest)
    whole = least(left)
    while left > 0:
        size = sizes.first(left)
        total, left = total + sizes.seconds[size], left - size
    assert total <= whole * 1.1**6 + 1e-12
