from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.api import temporary_files
from service.inference.recognizer import State
from tests.api.answers import problem
from tests.api.double import RecognizerDouble


@pytest.mark.parametrize(
    ("state", "alive", "live", "ready"),
    [
        ("ready", True, True, None),
        ("ready", False, False, "worker_dead"),  # stuck
        ("loading", True, True, "model_loading"),
        ("loading", False, False, "model_loading"),
        ("draining", True, True, "draining"),
        ("draining", False, True, "draining"),
        ("dead", False, True, "worker_dead"),  # is being restarted
    ],
)
async def test_probes(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, state: State, alive: bool, live: bool, ready: str | None
) -> None:
    recognizer.state, recognizer.worker_alive = state, alive
    response = await client.get("/livez")
    if live:
        assert (response.status_code, response.json()) == (200, {"status": "alive"})
    else:
        problem(response, 503, "worker_dead")
    response = await client.get("/readyz")
    if ready is None:
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
    else:
        problem(response, 503, ready)
        assert response.headers["retry-after"] == "1"


async def test_without_a_directory_for_temporary_files_the_service_is_not_ready(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    response = await client.get("/readyz")
    problem(response, 503, "storage_unwritable")
    assert "retry-after" not in response.headers
    (tmp_path / "gone").mkdir()
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
async def test_a_full_disk_is_ready(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def full() -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(temporary_files, "TemporaryFile", full)
    assert (await client.get("/readyz")).status_code == 200


async def test_a_full_queue_is_ready(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.waiting = 10_000
    assert (await client.get("/readyz")).status_code == 200


async def test_recognition_without_a_model(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.model = None
    response = await client.post("/recognize", content=b"RIFF", headers={"content-type": "audio/wav"})
    problem(response, 503, "model_loading")


async def test_metrics(client: httpx.AsyncClient) -> None:
    await client.get("/livez")
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    sample = next(s for s in families["ser_http_requests"].samples if s.name == "ser_http_requests_total")
    assert (sample.labels, sample.value) == ({"route": "/livez", "method": "GET", "code": "200"}, 1.0)
    openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")


async def test_metrics_are_made_off_the_loop(
    client: httpx.AsyncClient, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def collect() -> list[Metric]:
        threads.append(threading.current_thread())
        return []

    monkeypatch.setattr(registry, "collect", collect)
    await client.get("/metrics")
    assert threads
    assert threading.main_thread() not in threads
