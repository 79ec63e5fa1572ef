from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from emotion2vec_client import open_stream

from loadtests.common.ports import held_port
from tests.api.sounds import wav
from tests.observability.running import Prometheus, RunningService, eventually, prometheus, service
from tests.observability.traffic import MeasuredRequest, send


@dataclass(frozen=True)
class Observed:
    """A service after some traffic, and a Prometheus that has scraped all of it.

    `exposed` is the text of `/metrics` after the traffic, `logged` the fields of all log lines of requests.
    """

    prometheus: Prometheus
    answers: list[MeasuredRequest]
    exposed: str
    logged: list[dict[str, Any]]


def logged(server: RunningService) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line["logger"] == "service.requests"]


async def stream_silence(url: str) -> None:
    """Stream half a second of silence, which is one window and no utterance."""
    async with open_stream(url, sampling_rate=16_000) as stream:
        await stream.send(bytes(16_000))
        await stream.end()
        assert [event["type"] async for event in stream] == ["window", "result"]


@pytest.fixture(scope="package")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    directory = tmp_path_factory.mktemp("observed")
    with (
        held_port() as port,
        held_port() as prometheus_port,
        # Started first, because it looks for targets only every 5 s.
        prometheus(directory, prometheus_port, f"127.0.0.1:{port}") as monitor,
        service(directory, "--port", str(port), "--log-format", "json") as server,
    ):
        eventually(lambda: monitor.value("ser_worker_up"), "the first scrape")
        answers = send(server.url)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for path in ("/livez", "/readyz", "/models", "/no/such/page"):
                client.get(path)
            client.post("/recognize", content=b"no audio", headers={"content-type": "audio/wav"})
            silence, segments = wav(level=0), {"granularity": "segment"}
            client.post("/recognize", content=silence, headers={"content-type": "audio/wav"}, params=segments)
        asyncio.run(stream_silence(server.url))
        finished = time.time()

        def settled() -> bool:
            # A time in the past, whose values do not change any more. On a busy machine a scrape may fail.
            monitor.at = time.time() - 1.5
            return (
                monitor.value('sum(ser_http_requests_total{route=~"/recognize.*"})') == len(answers) + 2
                and monitor.value('ser_streams_closed_total{code="1000"}') == 1
                and monitor.value("count(instance:ser_saturation:ratio)") == 3
                and (monitor.value("timestamp(job:ser_recognize_slow:ratio_rate3d)") or 0) > finished
            )

        eventually(settled, "a time at which Prometheus has everything")
        yield Observed(monitor, answers, httpx.get(f"{server.url}/metrics", timeout=60).text, logged(server))
