"""Processes of the implementations that are compared: servers, and programs that answer one file and end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.bench.bench_models import BenchModel
from loadtests.bench.implementations import Implementation
from loadtests.common.machine import clean_environment
from loadtests.common.ports import held_port
from loadtests.common.server_process import ServerProcess, start_server, start_service

_FUNASR_PROGRAM = """
import json, sys
from funasr import AutoModel
hub, device, threads, file = sys.argv[1:]
options = {"ncpu": int(threads)} if int(threads) else {}
model = AutoModel(model=hub, device=device, disable_update=True, disable_pbar=True, log_level="ERROR", **options)
answer = model.generate(file, granularity="utterance", extract_embedding=False)[0]
print(json.dumps({"scores": answer["scores"]}), flush=True)
"""


@contextmanager
def serving(model: BenchModel, implementation: Implementation) -> Iterator[ServerProcess]:
    """Run the server of an implementation: the service, or the plain route around FunASR.

    Raises:
        RuntimeError: if it ends before it is ready, or is not ready in time.
    """
    if implementation.dtype is None:
        with held_port() as port:
            command = ["loadtests.bench.funasr_app", *_funasr_arguments(model, implementation), str(port)]
            with start_server(command, port, "/openapi.json") as server:
                yield server
    else:
        with start_service(_flags(model, implementation)) as server:
            yield server


def first_answer(model: BenchModel, implementation: Implementation, file: Path) -> float:
    """Seconds from the start of a new process to its scores for a file.

    Raises:
        RuntimeError: if it ends without an answer.
    """
    if implementation.dtype is None:
        command = ["-c", _FUNASR_PROGRAM, *_funasr_arguments(model, implementation), str(file)]
    else:
        command = ["-m", "service.cli", "recognize", "--json", *_flags(model, implementation), str(file)]
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


def _funasr_arguments(model: BenchModel, implementation: Implementation) -> Sequence[str]:
    return str(model.hub), implementation.device, str(implementation.threads)


def _flags(model: BenchModel, implementation: Implementation) -> Sequence[str]:
    return (
        *("--model", str(model.prepared), "--backend", implementation.backend),
        *("--device", implementation.device, "--dtype", str(implementation.dtype), "--offline"),
    )
