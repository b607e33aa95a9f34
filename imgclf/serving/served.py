"""The models of a server by name, each with its queue, and their reload without a lost request."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from imgclf import progress
from imgclf.errors import UserError
from imgclf.serving.batching import Batcher
from imgclf.serving.engines import Engine
from imgclf.serving.limits import Refusal

_NAME = re.compile(r"[\w.+-]+")


class Served:
    """One model: the engine that answers now, and how to open it anew."""

    def __init__(self, name: str, open_engine: Callable[[], Engine], start: Callable[[Engine], Batcher]):
        """
        Args:
          name: in paths and metrics.
          open_engine: reads the model from its folder; raises UserError.
          start: puts a queue in front of an engine.
        """
        self.name = name
        self._open, self._start = open_engine, start
        self.batcher = start(open_engine())
        self._reloading = asyncio.Lock()

    @property
    def engine(self) -> Engine:
        return self.batcher.engine

    def warm(self, console: Console | None = None) -> None:
        """Makes the model ready; blocks."""
        with progress.bar(console or Console(quiet=True)) as bar:
            task = bar.add_task(f"warming {self.name}", total=None)
            self.batcher.warm(lambda done, of: bar.update(task, completed=done, total=of))

    async def reload(self) -> None:
        """Opens the model anew beside the old one, which answers until the new one is warm, and then what it has taken.

        Raises:
          Refusal: while another reload is under way.
          UserError: if the folder holds no whole model any more; the old one stays.
        """
        if self._reloading.locked():
            raise Refusal(409, "reloading", f"{self.name} is being reloaded already: wait for it.", retry_after=5)
        async with self._reloading:
            fresh = self._start(await asyncio.to_thread(self._open))
            await asyncio.to_thread(fresh.warm)
            self.batcher = fresh


class Models(Mapping[str, Served]):
    """All models of a server; the first one answers where none is named."""

    def __init__(self, served: Sequence[Served]):
        self._served = {one.name: one for one in served}

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)


def names_of(sources: Sequence[str]) -> dict[str, Path]:
    """The models' folders by name: `NAME=FOLDER`, or the folder's own name.

    Raises:
      UserError: for two of one name, and for a name that can't stand in a URL.
    """
    found: dict[str, Path] = {}
    for source in sources:
        name, equals, folder = source.partition("=")
        if not equals or not _NAME.fullmatch(name) or Path(source).exists():
            folder = source
            name = Path(source).resolve().name
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} can't be a model's name in a URL: name it by letters and digits, as in photos={folder}.")
        if name in found:
            raise UserError(f"Two models are called {name!r}: name one of them, as in other={folder}.")
        found[name] = Path(folder)
    return found
