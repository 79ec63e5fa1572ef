"""The real commands as processes: servers, and programs that answer one file and end."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.checkpoint import BenchModel
from loadtests.holdings import peak_memory
from loadtests.machine import clean_environment
from loadtests.ports import held_port
from loadtests.sides import Side

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0

_FUNASR_PROGRAM = """
import json, sys
from funasr import AutoModel
hub, device, threads, file = sys.argv[1:]
options = {"ncpu": int(threads)} if int(threads) else {}
model = AutoModel(model=hub, device=device, disable_update=True, disable_pbar=True, log_level="ERROR", **options)
answer = model.generate(file, granularity="utterance", extract_embedding=False)[0]
print(json.dumps({"scores": answer["scores"]}), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def peak_memory(self) -> float:
        """Most MB that the server and its children have had."""
        return peak_memory(self.pid)


@contextmanager
def serving(model: BenchModel, side: Side) -> Iterator[Server]:
    """Run a server of its own: the service, or the plain route around FunASR.

    Raises:
        RuntimeError: if it ends before it is ready, or is not ready in time.
    """
    if side.dtype is None:
        with held_port() as port:
            command = ["loadtests.funasr_app", *_funasr_arguments(model, side), str(port)]
            with _started(command, port, "/openapi.json") as server:
                yield server
    else:
        with serving_with(_flags(model, side)) as server:
            yield server


@contextmanager
def serving_with(flags: Sequence[str]) -> Iterator[Server]:
    """Run the service with these flags.

    Raises:
        RuntimeError: if it ends before it is ready, or is not ready in time.
    """
    with (
        held_port() as port,
        _started(["service.cli", "serve", "--port", str(port), *flags], port, "/readyz") as server,
    ):
        yield server


@contextmanager
def _started(command: Sequence[str], port: int, probe: str) -> Iterator[Server]:
    # Into a file, since nobody reads while the server runs, and a full pipe would stop it.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=errors, env=clean_environment()
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(port, probe):
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    text = errors.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"a server is not ready (status {process.poll()}):\n{text}")
                time.sleep(0.02)
            yield Server(port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def first_answer(model: BenchModel, side: Side, file: Path) -> float:
    """Seconds from the start of a fresh process to its scores for a file.

    Raises:
        RuntimeError: if it ends without an answer.
    """
    if side.dtype is None:
        command = ["-c", _FUNASR_PROGRAM, *_funasr_arguments(model, side), str(file)]
    else:
        command = ["-m", "service.cli", "recognize", "--json", *_flags(model, side), str(file)]
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{") and "scores" in json.loads(line):
                return time.perf_counter() - began
    raise RuntimeError(f"no answer from {command} (status {process.returncode})")


def _funasr_arguments(model: BenchModel, side: Side) -> Sequence[str]:
    return str(model.hub), side.device, str(side.threads)


def _flags(model: BenchModel, side: Side) -> Sequence[str]:
    return (
        *("--model", str(model.prepared), "--backend", side.backend),
        *("--device", side.device, "--dtype", str(side.dtype), "--offline"),
    )


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
