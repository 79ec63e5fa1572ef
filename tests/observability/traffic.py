"""Sends requests to a real server at different speeds and measures them as a client does."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import numpy as np

from tests.api.sounds import wav

CALLERS = 32
REQUESTS = {"/recognize": 100, "/recognize/batch": 60}
FILE_FIELDS = {"/recognize": "file", "/recognize/batch": "files"}
CLIP_SECONDS = 0.3
_STAGE = re.compile(r"(\w+);dur=([0-9.]+)")


@dataclass(frozen=True)
class MeasuredRequest:
    """One request: the time that the client measured and the stages that the server reported, all in seconds."""

    route: str
    id: str
    status: int
    seconds: float
    stages: dict[str, float]


def send(url: str) -> list[MeasuredRequest]:
    """Send all requests, many at a time.

    Each upload pauses for about a second, by chance. So the requests take different times, next to which delays between
    client and server are small, without using the CPU.
    """
    random = np.random.default_rng(1)
    routes = random.permutation([route for route, count in REQUESTS.items() for _ in range(count)])
    pauses = random.lognormal(np.log(0.5), 0.5, len(routes))
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda route, pause: _request(url, str(route), float(pause)), routes, pauses))


def _request(url: str, route: str, pause: float) -> MeasuredRequest:
    form = httpx.Request("POST", url, files={FILE_FIELDS[route]: ("a.wav", wav(CLIP_SECONDS), "audio/wav")})
    body = form.read()

    def slowly() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        time.sleep(pause)
        yield body[len(body) // 2 :]

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.connect()
    try:
        began = time.perf_counter()
        # All clips are equal, but each must be computed.
        connection.request("POST", route, slowly(), {**form.headers, "Cache-Control": "no-cache"})
        response = connection.getresponse()
        response.read()
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    stages = _STAGE.findall(response.headers["Server-Timing"] or "")
    by_stage = {stage: float(milliseconds) / 1000 for stage, milliseconds in stages}
    return MeasuredRequest(route, response.headers["X-Request-ID"], response.status, seconds, by_stage)
