"""A short load test against the real server, checked against the service's own counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtests.checkpoint import BenchModel
from loadtests.processes import serving
from loadtests.sides import Side
from service.model.store import EMBEDDED, find

pytestmark = [
    pytest.mark.slow,
    # Not imported to find out: gevent would change the threads of this process.
    pytest.mark.skipif(find_spec("locust") is None, reason="needs the extra [bench]"),
]

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def model(tmp_path: Path) -> BenchModel:
    return BenchModel(hub=tmp_path, prepared=find(EMBEDDED, cache=tmp_path).directory)


def locust(port: int, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, "--host", f"http://127.0.0.1:{port}", "--json", "--stop-timeout", "30"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def requests(output: str) -> dict[str, int]:
    """Requests by row, as locust counted them."""
    return {row["name"]: row["num_requests"] for row in json.loads(output)}


def served(port: int) -> dict[str, int]:
    """Requests by status, as the service counted them."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return {
        sample.labels["code"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ser_http_requests_total" and sample.labels["route"] == "/recognize"
    }


def test_what_was_accepted_was_answered(model: BenchModel) -> None:
    with serving(model, Side("fp32", "", "cpu", "fp32")) as server:
        done = locust(server.port, LOAD_USERS="4", LOAD_SECONDS="8", LOAD_P99_MS="60000")
        counted = served(server.port)
    assert done.returncode == 0, done.stdout + done.stderr
    found = requests(done.stdout)
    accepted = sum(count for name, count in found.items() if name.startswith("/recognize"))
    assert accepted > 10
    assert counted == {"200": accepted}
    assert found["inference"] == accepted
    assert {"decode", "queue", "preprocess", "inference"} <= found.keys()


def test_a_limit_that_is_passed_decides_the_exit_status(model: BenchModel) -> None:
    with serving(model, Side("fp32", "", "cpu", "fp32")) as server:
        done = locust(server.port, LOAD_USERS="2", LOAD_SECONDS="3", LOAD_P99_MS="0.1")
    assert done.returncode == 1
    assert "FAILED: P99 is" in done.stderr
