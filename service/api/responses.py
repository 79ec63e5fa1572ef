"""JSON responses with timings, and jobs that end when their client disconnects."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.recognition.concurrency import in_pool
from service.recognition.json_encoding import encode
from service.results import Timings

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"


async def answer_response(
    threads: Executor, answer: Mapping[str, object], timings: Timings, *, large: bool, cached: bool | None
) -> Response:
    """The response with `answer` as JSON.

    Args:
        threads: encode a large answer, so that it does not block the event loop.
        answer: the document.
        timings: for the `Server-Timing` header.
        large: whether the answer may be large.
        cached: whether all of it came from the cache; None where no cache is used.
    """
    pieces = await in_pool(threads, None, encode, answer) if large else encode(answer)
    stages = timings.by_stage().items()
    headers = {"Server-Timing": ", ".join(f"{stage};dur={1000 * seconds:.3f}" for stage, seconds in stages)}
    if cached is not None:
        headers["X-Cache"] = "hit" if cached else "miss"
    if len(pieces) == 1:
        return Response(pieces[0], headers=headers, media_type=JSON)
    return _LargeResponse(pieces, headers)


class _LargeResponse(Response):
    """A response in pieces, each of which is released when the next one is sent.

    Starlette's `StreamingResponse` ends some time after its last piece was sent, so that the client might send its next
    request before this one has given back its permit.
    """

    media_type = JSON

    def __init__(self, pieces: Iterable[bytes], headers: Mapping[str, str]) -> None:
        self._pieces = deque(pieces)
        super().__init__(headers={**headers, "Content-Length": str(sum(map(len, self._pieces)))})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while self._pieces:
            piece = self._pieces.popleft()
            await send({"type": "http.response.body", "body": piece, "more_body": bool(self._pieces)})


async def while_connected(receive: Receive, job: Coroutine[Any, Any, T]) -> T:
    """Run `job` as long as the client is connected. The request's body must have been read to its end.

    Raises:
        ClientDisconnect: if the client disconnects first; `job` is then cancelled and has ended.
    """
    task = asyncio.ensure_future(job)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
    finally:
        # Also if this request itself is cancelled: both tasks must end with it.
        watcher.cancel()
        task.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)
    return task.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
