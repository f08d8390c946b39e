"""Starts and stops the server as orchestrators expect: health while the model loads, and a drain on SIGTERM.

At the pinned commit upstream's server opens its port only after the engine has loaded the model, and after SIGTERM
waits for open requests without limit. `install` makes `mlc_llm serve` listen first and load the model in a second
thread. Until the model is loaded, and from SIGTERM on, only monitoring is answered. All else is refused with status 503
and Retry-After, as vLLM does: clients and gateways then try another server, and the requests that run get all the time
that is left.

The first SIGTERM or SIGINT starts the drain: running requests may end within `--shutdown-timeout`, then the process
exits with status 0, whatever is stuck. It exits at once while the model loads, and at a second signal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import inspect
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import fastapi
import uvicorn
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlc_llm.cli import serve as command
from mlc_llm.interface import serve as interface
from mlc_llm.serve.entrypoints import metrics_entrypoints

from . import engine_watch, health, openai_errors
from .health import MONITORING

logger = logging.getLogger("uvicorn.error")

SHUTDOWN_SECONDS = 30.0
"""Default of `--shutdown-timeout`. Kubernetes' terminationGracePeriodSeconds must be longer."""

LATE_SECONDS = 1.0
"""How much later the process exits if not even the event loop runs any more."""

RETRY_SECONDS = 1
"""Retry-After of refused requests: a gateway has another server, other clients ask again."""

LOADING, DRAINING = "the model is being loaded", "the server is shutting down"

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Lifecycle:
    """An application that refuses requests while the server cannot take them, and counts those that run (ASGI 3).

    Args:
        stop: stops the server.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.running = 0
        # While the model loads, upstream's application does not exist yet.
        loading = fastapi.FastAPI(openapi_url=None)
        loading.include_router(metrics_entrypoints.app)  # With health's, and metrics that are all zero.
        openai_errors.handle(loading)
        self.app: ASGIApp = loading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in MONITORING:
            await self.app(scope, receive, send)
        elif health.unready and scope["type"] == "http":
            error = {"message": health.unready, "type": "service_unavailable", "param": None, "code": None}
            headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
            await JSONResponse({"error": error}, 503, headers)(scope, receive, send)
        else:
            self.running += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.running -= 1
                self._stop_if_drained()

    def take(self, app: ASGIApp) -> None:
        """Passes requests to `app` from now on."""
        self.app = app
        health.unready = ""

    def drain(self) -> None:
        """Refuses new requests, and stops the server when the last one that runs has ended."""
        health.unready = DRAINING
        logger.info("Shutting down: %d requests run", self.running)
        self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if health.unready == DRAINING and not self.running:
            self.stop()


class Server(uvicorn.Server):
    """Listens, then loads the model in a second thread, and serves it until a signal.

    Args:
        load: upstream's function, which calls `serve` with its application once the model is loaded.
        host: where to listen.
        port: where to listen.
        shutdown_timeout: seconds for running requests after the first signal.
    """

    current: Server | None = None

    def __init__(self, load: Callable[[], None], host: str, port: int, shutdown_timeout: float) -> None:
        self.lifecycle = Lifecycle(self._stop)
        # The application has no lifespan events.
        super().__init__(uvicorn.Config(self.lifecycle, host=host, port=port, log_level="info", lifespan="off"))
        # A probe every few seconds would fill the log.
        logging.getLogger("uvicorn.access").addFilter(_is_no_probe)
        self.load = load
        self.shutdown_timeout = shutdown_timeout
        self.error: BaseException | None = None
        self.loader = threading.Thread(target=self._load, name="load", daemon=True)
        self.stopped = threading.Event()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves, in the main thread. Raises what `load` raises."""
        Server.current = self
        health.unready = LOADING
        with self._signals():
            try:
                super().run(sockets)
            finally:
                self.stopped.set()
                if self.loader.ident is not None:
                    self.loader.join()  # It terminates the engine.
        if self.error is not None:
            raise self.error

    def serve_application(self, app: ASGIApp) -> None:
        """Serves upstream's application until the server stops. Called by `load`."""
        self.lifecycle.take(app)
        super()._log_started_message(self.listeners)
        self.stopped.wait()

    def _load(self) -> None:
        try:
            self.load()
        except BaseException as error:
            self.error = error
        self._stop()

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.loader.start()

    def _log_started_message(self, listeners: Any) -> None:
        # uvicorn's "running on" comes when the model is loaded, because people wait for it.
        self.listeners = listeners
        logger.info("Listening on port %d, loading the model", listeners[0].getsockname()[1])

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()  # uvicorn would wait without limit, and end by the signal.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Watches for signals in another thread, which can end the process even if this one is stuck."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        # Python writes each signal that has a handler to `wakeup` at once, wherever this thread is.
        handlers = {each: signal.signal(each, lambda *_: None) for each in SIGNALS}
        before = signal.set_wakeup_fd(wakeup.fileno())
        threading.Thread(target=self._watch, args=(ours,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            # After a signal the process is about to end, and must whatever its other threads and libraries do.
            if health.unready != DRAINING:
                signal.set_wakeup_fd(before)
                for each, handler in handlers.items():
                    signal.signal(each, handler)
                wakeup.close()

    def _watch(self, signals: socket.socket) -> None:
        if not signals.recv(1):
            return
        if health.unready == LOADING:
            os._exit(0)
        self.loop.call_soon_threadsafe(self._drain)
        select.select([signals], [], [], self.shutdown_timeout + LATE_SECONDS)
        # Without a message: the thread that is stuck may hold the lock of the log.
        os._exit(engine_watch.exit_status)

    def _drain(self) -> None:
        self.loop.call_later(self.shutdown_timeout, self._cut_off)
        self.lifecycle.drain()

    def _cut_off(self) -> None:
        logger.error(
            "%d requests have not ended in %g s and are cut off", self.lifecycle.running, self.shutdown_timeout
        )
        os._exit(engine_watch.exit_status)


def _is_no_probe(record: logging.LogRecord) -> bool:
    """Whether a record of uvicorn's access log is about a request for more than monitoring."""
    return not (isinstance(record.args, tuple) and record.args[2] in MONITORING)


def serve_application(app: ASGIApp) -> None:
    """Takes the place of `uvicorn.run` in upstream's function."""
    assert Server.current is not None
    Server.current.serve_application(app)


def seconds(text: str) -> float:
    """Parses a number of seconds that is not negative."""
    value = float(text)
    if not 0 <= value < threading.TIMEOUT_MAX:
        raise ValueError
    return value


def install() -> None:
    """Changes `mlc_llm serve` and `mlc_llm.interface.serve.serve`, and adds an option. Must come after `access`."""
    chosen = argparse.Namespace(shutdown_timeout=SHUTDOWN_SECONDS)
    upstream = interface.serve

    class Parser(command.ArgumentParser):  # type: ignore[misc]  # upstream has no types
        """The parser with the additional option."""

        def parse_args(self, *arguments: Any, **options: Any) -> argparse.Namespace:
            self.add_argument(
                "--shutdown-timeout",
                type=seconds,
                default=SHUTDOWN_SECONDS,
                metavar="SECONDS",
                help='time for running requests after SIGTERM (default: "%(default)g")',
            )
            parsed: argparse.Namespace = super().parse_args(*arguments, **options)
            chosen.shutdown_timeout = parsed.shutdown_timeout
            if not 0 <= parsed.port < 1 << 16:
                self.error(f"argument --port: expected a number from 0 to 65535, found {parsed.port}")
            return parsed

    @functools.wraps(upstream)
    def serve(*arguments: Any, **options: Any) -> None:
        where = inspect.signature(upstream).bind(*arguments, **options).arguments
        load = functools.partial(upstream, *arguments, **options)
        # Of this server: the program may have had another one.
        engine_watch.exit_status = 0
        Server(load, where["host"], where["port"], chosen.shutdown_timeout).run()
        if engine_watch.exit_status:
            sys.exit(engine_watch.exit_status)

    command.ArgumentParser = Parser
    command.serve = interface.serve = serve
