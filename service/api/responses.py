"""The HTTP side of an answer: encoded off the loop where it may be large, with `Server-Timing`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Executor

from starlette.responses import Response, StreamingResponse

from service.recognition.concurrency import in_pool
from service.recognition.json_encoding import encode
from service.results import Timings

_MEDIA_TYPE = "application/json"


async def answer_response(
    pool: Executor, answer: Mapping[str, object], timings: Timings, *, large: bool, cached: bool | None
) -> Response:
    """Encode `answer`, in a thread of `pool` where it may be `large`.

    `cached` says whether all of it was known before, None where there is no cache.
    """
    pieces = await in_pool(pool, None, encode, answer) if large else encode(answer)
    headers = {"Server-Timing": _server_timing(timings)}
    if cached is not None:
        headers["X-Cache"] = "hit" if cached else "miss"
    if len(pieces) == 1:
        return Response(pieces[0], headers=headers, media_type=_MEDIA_TYPE)
    headers["Content-Length"] = str(sum(map(len, pieces)))
    return StreamingResponse(_each(pieces), headers=headers, media_type=_MEDIA_TYPE)


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _server_timing(timings: Timings) -> str:
    stages = {
        "decode": timings.decode,
        "queue": timings.queue,
        "preprocess": timings.preprocess,
        "inference": timings.inference,
    }
    return ", ".join(f"{stage};dur={1000 * seconds:.3f}" for stage, seconds in stages.items())
