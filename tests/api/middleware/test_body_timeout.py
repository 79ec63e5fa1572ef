from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from tests.api.answers import problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav


class Paced:
    """A request body in pieces, each after a pause."""

    def __init__(self, first: bytes, *pauses: float) -> None:
        self.pieces = [(pause, b"x") for pause in pauses]
        self.pieces[0] = (pauses[0], first)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for pause, piece in self.pieces:
            await asyncio.sleep(pause)
            yield piece


@pytest.mark.parametrize(
    ("limits", "pauses", "reason"),
    [
        ({"body_timeout": 60, "body_idle_timeout": 0.2}, (0.0, 60.0), "within 0.2 seconds since its last byte"),
        ({"body_timeout": 0.4, "body_idle_timeout": 60}, (0.05,) * 1000, "within 0.4 seconds"),
        ({"body_idle_timeout": 0.3, "min_body_rate": 1000}, (0.02,) * 1000, "fewer than 1000 bytes per second"),
    ],
)
@pytest.mark.parametrize("media", ["audio/wav", "multipart/form-data; boundary=x"])
async def test_slow_bodies(
    new_app: Callable[..., FastAPI],
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    limits: dict[str, float],
    pauses: tuple[float, ...],
    reason: str,
    media: str,
) -> None:
    first = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    async with serving(new_app(**limits)) as client:
        response = await client.post("/recognize", content=Paced(first, *pauses), headers={"content-type": media})
        assert reason in problem(response, 408, "upload_timeout")["detail"]
        assert response.headers["connection"] == "close"
    assert recognizer.permits == 0
    labels = {"route": "/recognize", "method": "POST", "code": "408"}
    assert registry.get_sample_value("ser_http_requests_total", labels) == 1


@pytest.mark.parametrize(("rate", "status"), [(0, 200), (20, 200), (1000, 408)])
async def test_a_slow_but_steady_body(
    new_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch, rate: int, status: int
) -> None:
    clip = wav(0.1)
    size = len(clip) // 5 + 1
    loop = asyncio.get_running_loop()
    time, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: time() + ahead)

    async def body() -> AsyncIterator[bytes]:
        nonlocal ahead
        for begin in range(0, len(clip), size):
            await asyncio.sleep(0)
            ahead += 20.0
            yield clip[begin : begin + size]

    async with serving(new_app(body_idle_timeout=30, body_timeout=300, timeout=300, min_body_rate=rate)) as client:
        response = await client.post("/recognize", content=body(), headers={"content-type": "audio/wav"})
        assert response.status_code == status


async def test_waiting_for_the_answer_is_not_limited(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    recognizer.gate.clear()
    async with serving(new_app(body_timeout=0.1, body_idle_timeout=0.05)) as client:
        asking = asyncio.create_task(client.post("/recognize", content=wav(), headers={"content-type": "audio/wav"}))
        await asyncio.sleep(0.3)
        recognizer.gate.set()
        assert (await asking).status_code == 200
