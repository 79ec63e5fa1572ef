"""The client for programs on an event loop of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

import httpx
from tenacity import AsyncRetrying
from typing_extensions import Unpack

from emotion2vec_client.answers import Events, document_of, problem_of
from emotion2vec_client.calls import EVENTS, Attempts, Call, batch, connection_settings, recognition
from emotion2vec_client.errors import Problem, named_failures
from emotion2vec_client.files import File
from emotion2vec_client.retries import REFUSALS, Pace, Retries
from emotion2vec_client.types import Answer, BatchAnswer, Event, ModelDetails, Options


class AsyncClient:
    """Calls a service and awaits it, as `Client` does. Close it, or use it in an `async with` statement.

    Args:
        url: where the service is, such as `http://127.0.0.1:8000`.
        api_key: a key, where the service asks for one.
        timeout: seconds without a byte from the server after which a call fails; long files take their time.
        retries: how often calls are made again that the server refuses or does not receive.
        transport: how to get there, where httpx's way will not do (certificates of one's own, tests).

    Raises:
        ValueError: if the URL is none, or the key cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        retries: Retries = Retries(),  # noqa: B008 - immutable
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**connection_settings(url, api_key, timeout), transport=transport)
        self._retries = retries
        self._pace = Pace()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def recognize(
        self,
        file: File,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server is told, too
        request_id: str | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Recognise one file; see `Client.recognize`."""
        with recognition(file, options, timeout=timeout, request_id=request_id) as call:
            return cast(Answer, await self._document(call))

    async def recognize_batch(
        self,
        files: Sequence[File],
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
        **options: Unpack[Options],
    ) -> BatchAnswer:
        """Recognise several files with one request; see `Client.recognize_batch`."""
        with batch(files, options, timeout=timeout, request_id=request_id) as call:
            return cast(BatchAnswer, await self._document(call))

    async def segments(
        self,
        file: File,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncIterator[Event]:
        """Recognise a file utterance by utterance; see `Client.segments`.

        Whoever leaves the iterator early closes it (`contextlib.aclosing`), which ends the call.
        """
        options["granularity"] = "segment"
        with recognition(file, options, accept=EVENTS, timeout=timeout, request_id=request_id) as call:
            response = await self._send(call)
            try:
                events = Events(call.request_id)
                with named_failures(call.request_id):
                    async for data in response.aiter_bytes():
                        for event in events.of(data):
                            yield event
                events.finish()
            finally:
                await response.aclose()

    async def models(self) -> list[ModelDetails]:
        """The models that the service answers with; see `Client.models`."""
        return cast(list[ModelDetails], (await self._document(Call("GET", "/models")))["models"])

    async def ready(self) -> bool:
        """Whether the service takes calls now; see `Client.ready`."""
        try:
            await self._probe(Retries(attempts=1))
        except Problem as problem:
            if problem.status in REFUSALS:
                return False
            raise
        return True

    async def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until the service takes calls; see `Client.wait_ready`."""
        await self._probe(Retries.for_seconds(seconds))

    async def _probe(self, retries: Retries) -> None:
        call = Call("GET", "/readyz")
        await self._document(call, Attempts(call, retries, Pace()))  # whatever other calls were told to wait for

    async def _document(self, call: Call, attempts: Attempts | None = None) -> Any:
        response = await self._send(call, attempts)
        try:
            with named_failures(call.request_id):
                await response.aread()
        finally:
            await response.aclose()
        return document_of(response, call.request_id)

    async def _send(self, call: Call, attempts: Attempts | None = None) -> httpx.Response:
        """The response to the first attempt that succeeds, not read yet."""
        attempts = attempts or Attempts(call, self._retries, self._pace)
        async for attempt in AsyncRetrying(**attempts.policy):
            with attempt:
                await asyncio.sleep(attempts.pause())
                request = attempts.request(self._http, _in_threads(call.body.pieces()) if call.body else None)
                with named_failures(call.request_id):
                    response = await self._http.send(request, stream=True)
                    if response.is_success:
                        return response
                    try:
                        await response.aread()
                    finally:
                        await response.aclose()
                raise problem_of(response, call.request_id)
        raise AssertionError("tenacity ends with a result or an error")


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same, read in threads: disks and network shares may take their time, and the loop has none."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
