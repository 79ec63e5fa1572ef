"""The client for programs with threads, or without."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

import httpx
from tenacity import Retrying
from typing_extensions import Unpack

from emotion2vec_client.answers import Events, document_of, problem_of
from emotion2vec_client.calls import EVENTS, Attempts, Call, batch, connection_settings, recognition
from emotion2vec_client.errors import Problem, named_failures
from emotion2vec_client.files import File
from emotion2vec_client.retries import REFUSALS, Pace, Retries
from emotion2vec_client.types import Answer, BatchAnswer, Event, ModelDetails, Options


class Client:
    """Calls a service and waits. May be shared by threads; close it, or use it in a `with` statement.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**connection_settings(url, api_key, timeout), transport=transport)
        self._retries = retries
        self._pace = Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recognize(
        self, file: File, *, timeout: float | None = None, request_id: str | None = None, **options: Unpack[Options]
    ) -> Answer:
        """Recognise one file.

        Args:
            file: a path, bytes, or a binary file that can seek.
            timeout: seconds in which the answer must be there; the server gives up by itself after them.
            request_id: by which the server's log knows the call; made up unless given.
            options: as in docs/api.md.

        Raises:
            Problem: if the server says why there is no answer.
            Unreachable, Disconnected, TimedOut: if it does not answer.
            OSError: if the file cannot be read.
        """
        with recognition(file, options, timeout=timeout, request_id=request_id) as call:
            return cast(Answer, self._document(call))

    def recognize_batch(
        self,
        files: Sequence[File],
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        **options: Unpack[Options],
    ) -> BatchAnswer:
        """Recognise several files with one request; each has a result or a problem of its own.

        Raises:
            CallFailed, OSError: as `recognize` does.
        """
        with batch(files, options, timeout=timeout, request_id=request_id) as call:
            return cast(BatchAnswer, self._document(call))

    def segments(
        self, file: File, *, timeout: float | None = None, request_id: str | None = None, **options: Unpack[Options]
    ) -> Iterator[Event]:
        """Recognise a file utterance by utterance, each given as soon as the server knows it.

        The first event is `start`, the last is `result`. Leaving the iterator early ends the call.

        Raises:
            CallFailed, OSError: as `recognize` does, also midway.
        """
        options["granularity"] = "segment"
        with recognition(file, options, accept=EVENTS, timeout=timeout, request_id=request_id) as call:
            response = self._send(call)
            try:
                events = Events(call.request_id)
                with named_failures(call.request_id):
                    for data in response.iter_bytes():
                        yield from events.of(data)
                events.finish()
            finally:
                response.close()

    def models(self) -> list[ModelDetails]:
        """The models that the service answers with.

        Raises:
            CallFailed: as `recognize` does.
        """
        return cast(list[ModelDetails], self._document(Call("GET", "/models"))["models"])

    def ready(self) -> bool:
        """Whether the service takes calls now; False while it loads, restarts or shuts down.

        Raises:
            CallFailed: if nobody answers, or somebody else.
        """
        try:
            self._probe(Retries(attempts=1))
        except Problem as problem:
            if problem.status in REFUSALS:
                return False
            raise
        return True

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until the service takes calls.

        Raises:
            CallFailed: as it was in the end, if it does not within `seconds`.
        """
        self._probe(Retries.for_seconds(seconds))

    def _probe(self, retries: Retries) -> None:
        call = Call("GET", "/readyz")
        self._document(call, Attempts(call, retries, Pace()))  # whatever other calls were told to wait for

    def _document(self, call: Call, attempts: Attempts | None = None) -> Any:
        response = self._send(call, attempts)
        try:
            with named_failures(call.request_id):
                response.read()
        finally:
            response.close()
        return document_of(response, call.request_id)

    def _send(self, call: Call, attempts: Attempts | None = None) -> httpx.Response:
        """The response to the first attempt that succeeds, not read yet."""
        attempts = attempts or Attempts(call, self._retries, self._pace)
        for attempt in Retrying(**attempts.policy, sleep=time.sleep):
            with attempt:
                time.sleep(attempts.pause())
                request = attempts.request(self._http, call.body.pieces() if call.body else None)
                with named_failures(call.request_id):
                    response = self._http.send(request, stream=True)
                    if response.is_success:
                        return response
                    try:
                        response.read()
                    finally:
                        response.close()
                raise problem_of(response, call.request_id)
        raise AssertionError("tenacity ends with a result or an error")
