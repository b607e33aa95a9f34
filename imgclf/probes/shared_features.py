"""Features that several processes of one training lack, computed by all of them: each its share, over its own devices.

Each process's cache may be its own, or one that hosts share. So every process gets every feature, and writes what its cache lacks if it may
write there: process 0 takes its locks first, and where the others find the same lock, they leave the writing to it.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from rich.console import Console

from imgclf import progress
from imgclf.probes.feature_store import FeatureStore
from imgclf.runtime import hosts
from imgclf.training import sharding

_ROUND_ROWS = 1024  # of each process between two exchanges: a kill costs at most these
_together: contextvars.ContextVar[bool] = contextvars.ContextVar("_together", default=False)


@contextlib.contextmanager
def on_all_hosts() -> Iterator[None]:
    """In the block, all processes of the training ask for the same features in the same order, and compute them together."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


def is_shared() -> bool:
    """Whether others compute their share of what is asked for now."""
    return _together.get() and hosts.current().count > 1


class Request(Protocol):
    """Features that are asked for, by place; see `features.extract`."""

    @property
    def keys(self) -> list[bytes]: ...

    def missing(self, store: FeatureStore) -> np.ndarray: ...

    def at(self, places: np.ndarray) -> Self: ...


Asked = TypeVar("Asked", bound=Request)


def complete(
    request: Asked,
    stores: Sequence[FeatureStore],
    wait: Callable[[FeatureStore], Callable[[], bool]],
    compute: Callable[[Asked, Sequence[int]], Generator[list[np.ndarray]]],
    console: Console,
) -> int:
    """Computes what any process's stores lack, and returns how many features that were.

    Args:
      request: the same on every process.
      stores: of the views.
      wait: makes what is called while another training's process holds the lock of a store.
      compute: makes the features of a request for these views, float32 [b, D] each, a batch at a time.
      console: for the progress bar.
    """
    here, computed = hosts.current(), 0
    with contextlib.ExitStack() as locks:
        writable = _locked(stores, wait, locks)
        for store in stores:
            store.refresh()
        passes: dict[bytes, list[int]] = {}
        for view, store in enumerate(stores):
            lacking = np.zeros(len(request.keys), bool)
            lacking[request.missing(store)] = True
            passes.setdefault(np.flatnonzero(here.any_of(lacking)).tobytes(), []).append(view)
        for places, views in passes.items():
            todo = np.frombuffer(places, np.int64)
            if len(todo):
                _compute(_Pass(request, todo, {view: stores[view] for view in views}, writable & set(views)), compute, console)
                computed += len(todo) * len(views)
    here.wait()  # until the locks are free and all is written
    for store in stores:
        store.refresh()
    return computed


def _locked(
    stores: Sequence[FeatureStore], wait: Callable[[FeatureStore], Callable[[], bool]], locks: contextlib.ExitStack
) -> frozenset[int]:
    """Takes the locks of this process's stores, as far as no other process of the training has them: the views whose store is ours."""
    here, ours = hosts.current(), set[int]()
    for turn in (True, False):
        if turn == (here.index == 0):
            for view in sorted(range(len(stores)), key=lambda view: stores[view].key):  # in one order, so that no two wait in a ring
                waits = wait(stores[view]) if here.index == 0 else lambda: False
                if locks.enter_context(stores[view].writing(waits)):
                    ours.add(view)
        here.wait()
    return frozenset(ours)


@dataclasses.dataclass(frozen=True)
class _Pass(Generic[Asked]):
    """Views that lack the same images, so that these are decoded once: their stores, and which of them this process writes to."""

    request: Asked
    todo: np.ndarray  # int64 [m], places in the request
    stores: Mapping[int, FeatureStore]  # by view
    writable: frozenset[int]

    def append(self, places: np.ndarray, features: np.ndarray) -> None:
        """Adds features [n, V, D] of these places to the stores, as far as they lack them."""
        keys = self.request.at(places).keys
        for column, (view, store) in enumerate(self.stores.items()):
            if view in self.writable and len(lacking := np.flatnonzero(store.find(keys) < 0)):
                store.append([keys[place] for place in lacking], features[lacking, column])


def _compute(one: _Pass[Asked], compute: Callable[[Asked, Sequence[int]], Generator[list[np.ndarray]]], console: Console) -> None:
    """Computes the features of a pass, every process its share, a round after the other, and hands them to all."""
    here, todo = hosts.current(), one.todo
    shares = [todo[index :: here.count] for index in range(here.count)]
    most, widths = len(shares[0]), {store.width for store in one.stores.values()}
    size, shape = min(_ROUND_ROWS, most), (len(one.stores), widths.pop())
    with contextlib.ExitStack() as opened:
        bar = opened.enter_context(progress.bar(console, rate="images"))
        task = bar.add_task("features", total=len(todo))
        own = opened.enter_context(contextlib.closing(compute(one.request.at(here.share(todo)), list(one.stores))))
        blocks = _blocks(own, size)
        for start in range(0, most, size):
            block = next(blocks, np.zeros((0, *shape), np.float32))
            padded = np.zeros((size, *shape), np.float32)
            padded[: len(block)] = block
            everyones = sharding.gather(padded).reshape(here.count, size, *shape)
            for share, features in zip(shares, everyones, strict=True):
                places = share[start : start + size]
                one.append(places, features[: len(places)])
                bar.update(task, advance=len(places))


def _blocks(batches: Generator[list[np.ndarray]], size: int) -> Iterator[np.ndarray]:
    """Features [n, V, D], `size` images at a time and the rest at last, of those of each view, a batch at a time."""
    waiting = list[np.ndarray]()
    for of_views in batches:
        waiting.append(np.stack(of_views, axis=1))
        while sum(map(len, waiting)) >= size:
            rows = np.concatenate(waiting)
            yield rows[:size]
            waiting = [rows[size:]]
    if rest := [rows for rows in waiting if len(rows)]:
        yield np.concatenate(rest)
