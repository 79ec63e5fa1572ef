"""Runs the service and a Prometheus that scrapes it, as processes."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from tests.tools import needed

CONFIGURATION = Path(__file__).resolve().parents[2] / "docker" / "prometheus" / "prometheus.yaml"
TIMEOUT = 30.0

_T = TypeVar("_T")


def eventually(ask: Callable[[], _T | None], what: str) -> _T:
    """Call `ask` until its answer is neither None nor false, and return that answer."""
    deadline = time.monotonic() + TIMEOUT
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
    return answer


@dataclass(frozen=True)
class RunningService:
    """A server that is ready; `log` is its log file."""

    url: str
    log: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """Ask the server to stop, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@contextmanager
def service(directory: Path, *flags: str, **variables: str) -> Iterator[RunningService]:
    """Run the real command with the embedded model."""
    command = [sys.executable, "-m", "service.cli", "serve", *flags]
    # A file, because nobody would read a pipe.
    log = directory / "service.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **variables}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = re.search(r"Ready after .* at (http://\S+)", process.stdout.readline())
            assert ready, log.read_text()
            yield RunningService(ready[1], log, process)
        finally:
            process.kill()


class Prometheus:
    """Queries a Prometheus through its HTTP API.

    Attributes:
        at: the time of queries, in seconds since 1970; None is now.
    """

    def __init__(self, url: str) -> None:
        self.at: float | None = None
        self._client = httpx.Client(base_url=url, timeout=10)

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def api(self, path: str, **parameters: str) -> Any:
        """The data of the answer, which must be successful and without warnings."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """The labels and values of all series that `expression` gives, without NaN."""
        when = {} if self.at is None else {"time": str(self.at)}
        result = self.api("query", query=expression, **when)["result"]
        found = [(each["metric"], float(each["value"][1])) for each in result]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives at most one series."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def prometheus(directory: Path, port: int, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the project's configuration; only the target and the intervals differ."""
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(CONFIGURATION.parent / pattern) for pattern in configuration["rule_files"]]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    file = directory / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration))
    command = [needed("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    log = directory / "prometheus.log"
    with log.open("w") as errors, subprocess.Popen(command, stdout=errors, stderr=errors) as process:
        client = Prometheus(f"http://127.0.0.1:{port}")
        try:
            eventually(lambda: client.ready() or process.poll() is not None, "Prometheus")
            assert process.poll() is None, log.read_text()
            yield client
            assert log.read_text() == ""  # no rule and no scrape failed
        finally:
            client.close()
            process.kill()
