"""What is fetched ahead stays within its bound."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.remote.ahead import Window


def is_empty(window) -> bool:
    """Whether the window holds nothing, once what is under way has ended."""
    deadline = time.monotonic() + 2
    while window.held and time.monotonic() < deadline:
        time.sleep(0.001)
    return window.held == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100), st.randoms(use_true_random=False))
def test_the_window_holds_no_more_than_its_bound(sizes, most, random):
    window = Window(most, threads=4)
    order = list(range(len(sizes)))
    random.shuffle(order)
    with window.announced([(i, lambda size=size: b"x" * size, size) for i, size in enumerate(sizes)]):
        for i in order[: len(order) // 2 + 1]:
            data = window.take(i)
            assert data is None or len(data) == sizes[i]
    assert is_empty(window)
    assert window.peak <= max([most, *sizes])


def test_what_comes_is_fetched_together_and_each_once():
    fetched, together = [], threading.Barrier(8, timeout=5)

    def fetch(i):
        together.wait()
        fetched.append(i)
        return bytes([i])

    window = Window(1000, threads=8)
    with window.announced([(i, lambda i=i: fetch(i), 1) for i in range(8)]):
        taken = [window.take(i) for i in range(8)]
    assert taken == [bytes([i]) for i in range(8)]
    assert sorted(fetched) == list(range(8))
    assert window.take(0) is None


def test_an_error_reaches_the_one_who_reads():
    window = Window()

    def fetch():
        raise FileNotFoundError("gone")

    with window.announced([(1, fetch, 5), (2, fetch, 5)]), pytest.raises(FileNotFoundError):
        window.take(1)
    assert is_empty(window)


def test_who_waits_for_what_another_gives_up_reads_it():
    window, goes_on, waits, taken = Window(50, threads=1), threading.Event(), threading.Event(), []

    def take():
        waits.set()
        taken.append(window.take(2))

    reader = threading.Thread(target=take)
    with window.announced([(1, lambda: goes_on.wait(30) and b"1", 1), (2, lambda: b"2", 1)]):  # 2 is in the pool, which is busy with 1
        reader.start()
        waits.wait(30)
        time.sleep(0.05)  # so that it waits for 2's turn; were it slower, 2 would be unknown to it, which is None as well
    goes_on.set()
    reader.join()
    assert taken == [None]


def test_one_key_may_be_announced_twice_and_read_by_several_threads():
    window, results = Window(50, threads=3), []

    def read():
        items = [(key, lambda key=key: time.sleep(0.001) or bytes([key]) * 10, 10) for key in (1, 2, 1, 3, 2)]
        with window.announced(items):
            for key, _, _ in items:
                data = window.take(key)
                results.append(data is None or data == bytes([key]) * 10)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results)
    assert len(results) == 30
    assert is_empty(window)
