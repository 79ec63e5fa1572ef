"""The response of `granularity=segment`: one JSON document, or lines that are sent as soon as they are known."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import cast

from opentelemetry.trace import get_current_span
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.problems import problem_of, reported
from service.api.request_body import ReceivedRequest
from service.api.request_context import CLIENT_GONE, RequestContext, request_context, services
from service.api.responses import JSON, NDJSON, answer_response, while_connected
from service.api.schemas import ProblemLine, ResultLine, SegmentedAnswer, SegmentLine, StageSeconds, StartLine
from service.errors import Draining, ServiceError
from service.recognition.answers import model_summary
from service.recognition.json_encoding import encode, encoded
from service.recognition.long_file import LongFileRecognition, SegmentLists
from service.recognition.result_types import Segment

_QUALITY = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")


async def answer_segments(request: Request, received: ReceivedRequest, until_sent: ExitStack) -> Response:
    """Recognise the segments of a file.

    Args:
        request: its `Accept` header chooses between a document and lines.
        received: the file and its options.
        until_sent: released after the response was sent.

    Raises:
        ServiceError: if the beginning of the file shows that it cannot be recognised; for a document, any error.
    """
    core, context = services(request).core, request_context(request.scope)
    file = received.files.popleft().file
    try:
        long_file = LongFileRecognition(core, file, received.options, received.deadline, context.progress)
    except BaseException:
        file.close()
        raise
    until_sent.callback(long_file.close)
    await long_file.open()
    if wants_lines(request.headers.getlist("accept")):
        return SegmentStream(long_file, context)
    segments = SegmentLists()

    async def collect(segment: Segment) -> None:
        segments.add(segment, encoded(segment))

    totals, timings = await long_file.run(collect)
    answer: SegmentedAnswer = {"id": context.id, "model": model_summary(long_file.model), **totals.result(segments)}
    return await answer_response(core.threads, answer, timings, large=True, cached=None)


class SegmentStream(StreamingResponse):
    """A response of JSON lines, each sent as soon as it is known; `service.api.schemas.Line` describes them.

    A client that does not read pauses the recognition: no line is made before the previous one was sent, and
    `service.api.server.http_protocol` aborts connections that are not read at all.

    Args:
        long_file: an opened recording.
        context: of the request.
    """

    media_type = NDJSON

    def __init__(self, long_file: LongFileRecognition, context: RequestContext) -> None:
        # Without this header, nginx would buffer the response.
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._long_file = long_file
        self._context = context
        self._open = False  # begun and not ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Recognise the recording and send the lines."""
        try:
            await while_connected(receive, self._lines(send))
        except ClientDisconnect:
            self._context.outcome = CLIENT_GONE
            raise
        except asyncio.CancelledError:
            # The server cancels the remaining requests at the end of its grace period.
            if self._open:
                await self._send_line(send, self._problem(Draining("The service is shutting down.")), last=True)
            raise

    async def _lines(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            last: Mapping[str, object] = await self._results(send)
        except Exception as exc:
            last = self._problem(reported(exc, self._context))
        await self._send_line(send, last, last=True)

    async def _results(self, send: Send) -> ResultLine:
        """Send the first line and the segments; the result is the last line."""
        recording = self._long_file.recording
        start: StartLine = {
            "type": "start",
            "id": self._context.id,
            "model": model_summary(self._long_file.model),
            "audio": {"sampling_rate": recording.sampling_rate, "channels": recording.channels},
        }
        await self._send_line(send, start)

        async def send_segment(segment: Segment) -> None:
            line: SegmentLine = {"type": "segment", **segment}
            await self._send_line(send, line)

        totals, timings = await self._long_file.run(send_segment)
        return {"type": "result", **totals.result(), "timings": cast(StageSeconds, timings.by_stage())}

    def _problem(self, error: ServiceError) -> ProblemLine:
        problem = problem_of(error, self._context.id)
        self._context.code = problem["code"]
        self._context.outcome = problem["status"]
        get_current_span().set_attribute("problem.code", problem["code"])
        return {**problem, "type": "problem"}

    async def _send_line(self, send: Send, line: Mapping[str, object], *, last: bool = False) -> None:
        self._open = not last
        body = b"".join([*encode(line), b"\n"])
        await send({"type": "http.response.body", "body": body, "more_body": not last})


def wants_lines(accept: Iterable[str]) -> bool:
    """Whether the client accepts `NDJSON` by name, with at least the quality of `JSON`.

    A range such as `*/*` or `application/*` does not choose lines, which few programs can read.

    Args:
        accept: the values of all `Accept` headers.
    """
    qualities = dict(_ranges(",".join(accept)))
    lines = qualities.get(NDJSON, 0.0)
    document = next((qualities[each] for each in (JSON, "application/*", "*/*") if each in qualities), 0.0)
    return lines > 0 and lines >= document


def _ranges(accept: str) -> Iterable[tuple[str, float]]:
    """The media ranges and their qualities from 0 to 1; malformed ones are left out."""
    for each in accept.split(","):
        media, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((value for part in parameters if (value := part.removeprefix("q=")) != part), "1")
        if media and _QUALITY.fullmatch(quality):
            yield media, float(quality)
