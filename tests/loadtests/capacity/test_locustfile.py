"""Short load tests against the real server, checked against the service's own counts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from loadtests.common.metrics_scrape import scrape
from loadtests.common.server_process import start_service

pytestmark = [
    pytest.mark.slow,
    # Not imported here, since gevent would patch the threads of this process.
    pytest.mark.skipif(find_spec("locust") is None, reason="needs the extra [bench]"),
]

ROOT = Path(__file__).resolve().parents[3]


def locust(url: str, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/capacity/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, "--host", url, "--json", "--stop-timeout", "30", *flags],
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


def accepted(found: dict[str, int]) -> int:
    return sum(count for name, count in found.items() if name.startswith("/recognize"))


@pytest.mark.parametrize("shape", ["steady", "step", "spike", "soak"])
def test_the_service_has_counted_every_accepted_request(shape: str, tmp_path: Path) -> None:
    written = ["--csv", str(tmp_path / "load"), "--html", str(tmp_path / "load.html")]
    with start_service([]) as server:
        done = locust(server.url, *written, LOAD_SHAPE=shape, LOAD_USERS="4", LOAD_SECONDS="8", LOAD_P99_MS="60000")
        counted = scrape(server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = requests(done.stdout)
    assert accepted(found) > 5
    assert counted.statuses() == {"200": accepted(found)}
    assert counted["ser_requests_in_flight"] == counted["ser_queue_depth"] == 0
    assert found["inference"] == accepted(found)
    assert {"decode", "queue", "preprocess", "inference"} <= found.keys()
    with (tmp_path / "load_stats.csv").open(encoding="utf-8") as file:
        rows = {row["Name"] for row in csv.DictReader(file)}
    assert {"inference", "Aggregated"} <= rows
    assert "/recognize" in (tmp_path / "load.html").read_text(encoding="utf-8")


def test_refusals_have_rows_of_their_own_and_are_no_failures() -> None:
    with start_service(["--max-in-flight", "1"]) as server:
        done = locust(server.url, LOAD_USERS="6", LOAD_SECONDS="8", LOAD_P99_MS="60000")
        strict = locust(server.url, LOAD_USERS="6", LOAD_SECONDS="3", LOAD_P99_MS="60000", LOAD_REFUSED_RATIO="0")
        counted = scrape(server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert strict.returncode == 1
    assert "were refused" in strict.stderr
    first, second = requests(done.stdout), requests(strict.stdout)
    assert first["refused 429"] > 0
    refused = first["refused 429"] + second["refused 429"]
    assert counted.statuses() == {"200": accepted(first) + accepted(second), "429": refused}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"LOAD_P99_MS": "0.1"}, "P99 is"), ({"LOAD_P99_MS": "60000", "LOAD_ERROR_RATIO": "0.1"}, "requests failed")],
)
def test_an_exceeded_limit_sets_the_exit_status(settings: dict[str, str], reason: str) -> None:
    # Clips of 3 s and more are refused as too long: those requests fail.
    flags = ["--max-duration", "2", "--max-queue-seconds", "100"] if "LOAD_ERROR_RATIO" in settings else []
    with start_service(flags) as server:
        done = locust(server.url, LOAD_USERS="2", LOAD_SECONDS="3", **settings)
    assert done.returncode == 1
    assert "FAILED: " in done.stderr
    assert reason in done.stderr
