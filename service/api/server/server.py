"""The server process: uvicorn around the app, with a shutdown that answers every accepted request."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from service.api.server.http_protocol import limited_protocol
from service.api.server.websocket_protocol import WEBSOCKETS
from service.api.temporary_files import check_temporary_files
from service.errors import Draining, ServiceError, SetupError, StorageUnwritable
from service.inference.engine import Engine
from service.preprocess.ffmpeg import sandbox
from service.settings.settings import Settings

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP comes when the terminal is closed; there is nothing to read again."""

_CONNECTIONS_GRACE = 10
"""Seconds for sending the last responses after the engine has drained."""


class Server(uvicorn.Server):
    """Drains before it stops listening.

    uvicorn closes its sockets at the first signal, so that new callers get connection errors while accepted requests
    are still served. Here the engine drains first: `/readyz` answers 503, new requests get a problem document with
    `Retry-After`, accepted ones are answered; then uvicorn stops. A second signal stops at once.

    Args:
        app: the application that `service.api.app.create_app` made around `engine`.
        engine: drained at a stop signal.
        settings: address, limits and drain timeout.
        announce: called once with the server's URL when the model is ready.

    Attributes:
        setup_error: why this process cannot serve the model (any more); None otherwise.
    """

    def __init__(self, app: FastAPI, engine: Engine, settings: Settings, announce: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=limited_protocol(settings),
                **WEBSOCKETS,
                host=settings.host,
                port=settings.port,
                uds=None if settings.uds is None else str(settings.uds),
                # uvicorn's default would trust the headers of every client on this machine.
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_keep_alive=settings.keep_alive_timeout,
                timeout_graceful_shutdown=_CONNECTIONS_GRACE,
            )
        )
        _warn_if_open(settings)
        self.setup_error: SetupError | None = None
        self._engine = engine
        self._settings = settings
        self._announce = announce
        self._engine_watch: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain and then exit at the first signal; exit at once at the second."""
        if self.started and not self.should_exit and self._draining is None:
            logger.info("draining")
            self._draining = asyncio.get_running_loop().create_task(self._drain_then_exit())
        elif sig != signal.SIGHUP or self._draining is None:  # a terminal that is closed sends it twice
            self.should_exit = True
            self.force_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the stop signals on the event loop, where tasks can be created.

        uvicorn would also raise the signal again after its shutdown; here an orderly stop exits with status 0.
        """
        loop = asyncio.get_running_loop()
        handled = [sig for sig in _STOP_SIGNALS if signal.getsignal(sig) is not signal.SIG_IGN]  # nohup ignores SIGHUP
        for sig in handled:
            loop.add_signal_handler(sig, self.handle_exit, sig, None)
        try:
            yield
        finally:
            for sig in handled:
                loop.remove_signal_handler(sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and start the task that announces the URL once the model is ready."""
        began = False
        try:
            own = _sockets(self._settings)
            began = True
            await super().startup(sockets or own)
        except OSError as error:  # which uvicorn handles for a port only
            logger.error("cannot listen: %s", error)
            if began:
                await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        if self.started:
            _warn_if_unwritable()
            # Not awaited: only uploads that need FFmpeg use it, and they start it themselves if it is not running.
            asyncio.get_running_loop().run_in_executor(None, _start_decoder)
            self._engine_watch = asyncio.get_running_loop().create_task(self._follow_engine())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, and then end the decoders that are still busy, since nobody waits for them any more."""
        await super().shutdown(sockets)
        sandbox.end_busy()

    @property
    def url(self) -> str:
        """Where the server listens, with the actual port where the setting is 0; any host for a Unix domain socket."""
        if self._settings.uds is not None:
            return f"http://localhost{self._settings.root_path}"
        port = self.servers[0].sockets[0].getsockname()[1]
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{port}{self._settings.root_path}"

    async def _follow_engine(self) -> None:
        try:
            await self._engine.wait_ready()
        except Draining:
            return
        except SetupError as error:
            # Restarting the worker cannot help: the process must exit and report the error.
            self.setup_error = error
            self.should_exit = True
            return
        self._announce(self.url)
        await self._engine.wait_permanent_failure()
        # Some GPU errors last until the process exits; a supervisor is expected to restart it.
        self.setup_error = SetupError("The model could not be loaded again after several attempts; the log says why.")
        self.should_exit = True

    async def _drain_then_exit(self) -> None:
        try:
            await self._engine.drain(self._settings.drain_timeout)
        finally:
            self.should_exit = True


def _sockets(settings: Settings) -> list[socket.socket] | None:
    """The sockets for both address families if the host is `::`; None if uvicorn makes them.

    asyncio accepts only IPv6 there. One socket for both would give IPv4 clients mapped addresses, which are in no
    network of `trusted_proxies`.

    Raises:
        OSError: if the addresses are in use. asyncio would take a Unix domain socket away from another server.
    """
    if settings.uds is not None:
        if _is_listening(settings.uds):
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {settings.uds}")
        return None
    if settings.host != "::":
        return None
    first = socket.create_server(("::", settings.port), family=socket.AF_INET6)
    try:
        port = first.getsockname()[1]  # chosen by the system if the setting is 0
        return [first, socket.create_server(("0.0.0.0", port))]  # noqa: S104
    except OSError:
        first.close()
        raise


def _is_listening(path: Path) -> bool:
    """Whether a process accepts connections at this Unix domain socket, which may be left over from another one."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _start_decoder() -> None:
    # The error is logged where it is raised, and uploads that need the decoder fail with it.
    with contextlib.suppress(ServiceError):
        sandbox.warm_up()


def _warn_if_unwritable() -> None:
    """Tell an operator at start that uploads above the size that fits into memory cannot be taken."""
    try:
        check_temporary_files()
    except StorageUnwritable as error:
        logger.error("temporary files cannot be written: %s; /readyz answers 503 until they can", error.__cause__)


def _warn_if_open(settings: Settings) -> None:
    """Warn an operator whose service can be reached from other machines without an API key."""
    if not settings.is_local and not settings.needs_key:
        logger.warning("anyone who can reach %s may call: set api_keys or api_keys_file", settings.host)
