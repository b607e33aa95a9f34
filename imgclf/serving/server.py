"""From folders to a process that answers: opens the models, binds the port, and ends without dropping a request."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from imgclf.errors import UserError
from imgclf.runtime import processor
from imgclf.serving.app import AppOptions, create_app
from imgclf.serving.batching import Batcher
from imgclf.serving.engines import Engine, EngineName, open_engine
from imgclf.serving.limits import Limits, Refusal, check_options
from imgclf.serving.listening import bound
from imgclf.serving.metrics import Metrics
from imgclf.serving.served import Models, Served, names_of

MAX_BATCH, MAX_WAIT_MS = 16, 5.0
_HEADER_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(  # noqa: PLR0913  (options by name)
    *sources: str | os.PathLike[str],
    port: int = 8000,
    host: str = "127.0.0.1",
    engine: EngineName = "auto",
    token: str = "",
    cors: Sequence[str] = (),
    threshold: float | None = None,
    max_batch: int = MAX_BATCH,
    max_wait_ms: float = MAX_WAIT_MS,
    limits: Limits | None = None,
) -> None:
    """Serves models over HTTP until SIGTERM or Ctrl-C, which let it finish what it has taken; SIGHUP reloads the models.

        imgclf.serve("runs/photos", port=8000)

    Args:
      sources: folders of runs, saved models or exports to ONNX; the first one answers where a request names none. `NAME=FOLDER` names one.
      port: 0 = any that is free.
      host: 127.0.0.1 = this machine only; 0.0.0.0 = the network, too.
      engine: "jax", "onnx", or "auto", which is onnx for an export.
      token: that requests must bring, as `Authorization: Bearer TOKEN`; "" = none.
      cors: origins of pages that may ask this server from a browser.
      threshold: probability below which an answer is "unknown" where a request does not say.
      max_batch: images per batch at most.
      max_wait_ms: milliseconds that a batch waits at most for images that are being decoded, where larger batches pay.
      limits: see `Limits`.

    Raises:
      UserError: for a folder that is no finished run or export, an option out of its range, or a port that can't be had.

    Example:
      >>> imgclf.serve("photos")
      Traceback (most recent call last):
      imgclf.errors.UserError: photos is not a finished run (it has no results.json): finish it with imgclf train ...
    """
    console = Console(stderr=True)
    limits = limits or Limits()
    listening = bound(host, port)
    try:
        app = build(
            [os.fspath(source) for source in sources],
            AppOptions(token, tuple(cors), threshold, limits),
            engine=engine,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            console=console,
        )
        _tell(console, app, listening, host, token)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=int(limits.seconds) + 1,
        )
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a damaged body is its request's answer, not the server's log
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd metadata
            _Server(config, app).run(sockets=[listening])
    finally:
        listening.close()


def build(
    sources: Sequence[str],
    options: AppOptions,
    *,
    engine: EngineName = "auto",
    max_batch: int = MAX_BATCH,
    max_wait_ms: float = MAX_WAIT_MS,
    console: Console | None = None,
) -> FastAPI:
    """The app of these models, for any ASGI server; see `serve` for the arguments. They are warmed when the app starts.

    Raises:
      UserError: as `serve`.
    """
    check_options(options.threshold, max_batch, max_wait_ms)
    if not sources:
        raise UserError("There is nothing to serve: name the folder of a finished run or of an export.")
    limits, metrics = options.limits, Metrics()
    named, models = names_of(sources), []
    decoders = ThreadPoolExecutor(processor.cores() + len(named), thread_name_prefix="decode")  # one per model computes
    for name, path in named.items():

        def start(opened: Engine, name: str = name) -> Batcher:
            batcher = Batcher(
                opened, decoders, threads=processor.cores(), queue=limits.queue, max_batch=max_batch, max_wait=max_wait_ms / 1000
            )
            batcher.on_batch = lambda images, seconds: metrics.batch(name, images, seconds)
            metrics.watch_queue(name, lambda: batcher.admitted)
            return batcher

        def opened(path: Path = path) -> Engine:
            return open_engine(path, engine, limits.pixels)

        models.append(Served(name, opened, start))
    return create_app(Models(models), options, metrics, console)


class _Server(uvicorn.Server):
    """uvicorn's, which ends quietly when it is asked to, and reloads at SIGHUP."""

    def __init__(self, config: uvicorn.Config, app: FastAPI):
        super().__init__(config)
        self._app_served = app
        self._idle: dict[Any, float] = {}  # connections without a request → since when
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ends at SIGTERM and Ctrl-C, at the second of them at once; unlike uvicorn's, it does not raise the signal anew afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_all)

    async def on_tick(self, counter: int) -> bool:
        """Closes connections whose request has not begun, or whose headers have not ended, for longer than clients keep them for use."""
        if counter % 10 == 0:
            now, before = time.monotonic(), self._idle
            connections = [one for one in self.server_state.connections if not _is_answering(one)]
            self._idle = {one: before.get(one, now) for one in connections}
            for connection, since in self._idle.items():
                if now - since > _HEADER_SECONDS and connection.transport is not None:
                    connection.transport.close()
        return await super().on_tick(counter)

    def _reload_all(self) -> None:
        for served in self._app_served.state.handlers.models.values():
            task = asyncio.ensure_future(self._reload(served))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reload(self, served: Served) -> None:
        try:
            await served.reload()
            print(f"{served.name} is reloaded.", file=sys.stderr, flush=True)
        except (UserError, Refusal) as error:
            print(f"{served.name} stays as it was: {error}", file=sys.stderr, flush=True)


def _is_answering(connection: Any) -> bool:
    """Whether a request has been read to the end of its headers, and is not answered yet."""
    cycle = getattr(connection, "cycle", None)  # of uvicorn's protocols for HTTP/1.1, all of them
    return cycle is not None and not cycle.response_complete


def _tell(console: Console, app: FastAPI, listening: socket.socket, host: str, token: str) -> None:
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(app.state.handlers.models)
    lines = [f"Serving {names} at http://{shown}:{port} (Ctrl-C stops)."]
    if host not in _LOOPBACK and not token:
        lines.append("Warning: whoever reaches this machine's network can ask this server; --token=SECRET asks for a secret.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
