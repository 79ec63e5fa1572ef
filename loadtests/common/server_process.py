"""Servers as processes."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from emotion2vec_client import Client

from loadtests.common.machine import clean_environment
from loadtests.common.ports import held_port
from loadtests.common.process_resources import peak_memory

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that is ready.

    Attributes:
        port: where it listens.
        pid: of its process.
        start_seconds: from the start of the process until it was ready.
    """

    port: int
    pid: int
    start_seconds: float

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def peak_memory(self) -> float:
        """Peak memory of the server and its children, in MB (10^6 bytes)."""
        return peak_memory(self.pid)


@contextmanager
def start_service(flags: Sequence[str]) -> Iterator[ServerProcess]:
    """Run the service with flags of `serve`.

    Raises:
        RuntimeError: if it ends before it is ready, or is not ready after 300 s.
    """
    with (
        held_port() as port,
        start_server(["service.cli", "serve", "--port", str(port), *flags], port, "/readyz") as server,
    ):
        yield server


@contextmanager
def start_server(command: Sequence[str], port: int, probe: str) -> Iterator[ServerProcess]:
    """Run a Python module as a server, and stop it at the end.

    Args:
        command: the module and its arguments.
        port: where it listens.
        probe: a path that is answered with 200 when the server is ready.

    Raises:
        RuntimeError: if it ends before it is ready, or is not ready after 300 s.
    """
    # Standard error goes to a file: a pipe that is not read would fill up and block the server.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=errors, env=clean_environment()
        ) as process,
    ):
        began = time.monotonic()
        try:
            while not _answers(port, probe):
                if process.poll() is not None or time.monotonic() > began + _START_SECONDS:
                    errors.seek(0)
                    text = errors.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"a server is not ready (status {process.poll()}):\n{text}")
                time.sleep(0.02)
            yield ServerProcess(port, process.pid, time.monotonic() - began)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def service_url(url: str | None, flags: Sequence[str]) -> Iterator[str]:
    """The URL of a running server, or of one that is started with flags of `serve` where `url` is None.

    Raises:
        SystemExit: if there are both a URL and flags.
    """
    if url is None:
        with start_service(flags) as server:
            yield server.url
    elif flags:
        raise SystemExit("flags need a server that is started here; --url names a running one")
    else:
        yield url


def model_description(url: str) -> str:
    """The model of a server: name, revision, precision, device and backend; the API key is LOAD_API_KEY."""
    with Client(url, api_key=os.environ.get("LOAD_API_KEY")) as client:
        first = client.models()[0]
    return f"{first['id']} ({first['revision']}), {first['dtype']} on {first['device']} with {first['backend']}"


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
