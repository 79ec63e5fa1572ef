"""Requests to a real server, as a client sees them: sent at different speeds, timed from first byte to last."""

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
class Answered:
    """One request: what the client measured, and what the server says of its stages, all in seconds."""

    route: str
    id: str
    status: int
    seconds: float
    stages: dict[str, float]


def send(url: str) -> list[Answered]:
    """Send all requests, many at a time.

    How slowly an upload comes in decides how long its request takes. So they take differently long, a second or so,
    beside which a busy machine's delays between client and server do not count, and cost no computing.
    """
    random = np.random.default_rng(1)
    routes = random.permutation([route for route, count in REQUESTS.items() for _ in range(count)])
    pauses = random.lognormal(np.log(0.5), 0.5, len(routes))
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda route, pause: _request(url, str(route), float(pause)), routes, pauses))


def _request(url: str, route: str, pause: float) -> Answered:
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
        # Every clip shall be computed, though all are the same.
        connection.request("POST", route, slowly(), {**form.headers, "Cache-Control": "no-cache"})
        response = connection.getresponse()
        response.read()
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    stages = _STAGE.findall(response.headers["Server-Timing"] or "")
    told = {stage: float(milliseconds) / 1000 for stage, milliseconds in stages}
    return Answered(route, response.headers["X-Request-ID"], response.status, seconds, told)
