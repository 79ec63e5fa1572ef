from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from tests.api.conftest import serving
from tests.api.double import RecognizerDouble


async def test_the_lifespan_starts_and_drains_the_recognizer(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    async with serving(new_app(drain_timeout=7)) as client:
        assert (recognizer.started, recognizer.drained) == (1, [])
        assert (await client.get("/livez")).status_code == 200
    assert (recognizer.started, recognizer.drained) == (1, [7.0])
