"""The answer of `granularity=segment`: one JSON document at the end, or lines as soon as they are known."""

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
from service.api.request_context import CLIENT_GONE, RequestContext, Services, request_context
from service.api.responses import JSON, NDJSON, answer_response, while_connected
from service.api.schemas import ProblemLine, ResultLine, SegmentedAnswer, SegmentLine, StageSeconds, StartLine
from service.errors import Draining, ServiceError
from service.recognition.answers import model_summary
from service.recognition.json_encoding import encode, encoded
from service.recognition.long_file import LongFileRecognition, SegmentLists
from service.recognition.result_types import Segment

_QUALITY = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")


async def answer_segments(request: Request, parts: Services, received: ReceivedRequest, held: ExitStack) -> Response:
    """Answer a request that has arrived whole.

    Args:
        request: its `Accept` decides on the form of the answer.
        parts: the parts of the application.
        received: the file and its options.
        held: what the request holds until its answer has left; a stream of lines takes it along.

    Raises:
        ServiceError: if the beginning of the file already shows that there is no answer; later too, for the form that
            is sent whole.
    """
    context = request_context(request.scope)
    file = received.upload.take().file
    try:
        long_file = LongFileRecognition(parts.core, file, received.options, received.deadline, context.progress)
    except BaseException:
        file.close()
        raise
    held.callback(long_file.close)
    await long_file.open()
    if wants_lines(request.headers.getlist("accept")):
        return SegmentStream(long_file, context, held.pop_all())
    return await _whole(parts, long_file, context)


async def _whole(parts: Services, long_file: LongFileRecognition, context: RequestContext) -> Response:
    segments = SegmentLists()

    async def keep(segment: Segment) -> None:
        segments.add(segment, encoded(segment))

    totals, timings = await long_file.run(keep)
    answer: SegmentedAnswer = {
        "id": context.id,
        "model": model_summary(long_file.model),
        **totals.result(segments),
    }
    return await answer_response(parts.core.threads, answer, timings, large=True, cached=None)


class SegmentStream(StreamingResponse):
    """An answer as lines of JSON, each sent as soon as it is known; `service.api.schemas.Line` describes them.

    A client that does not read stops the recognition: no line is made before the previous one was taken, and
    `service.api.server.http_protocol` aborts connections that are not read at all.

    Args:
        long_file: an opened recording.
        context: of the request.
        held: closed when the answer has left, or cannot leave any more.
    """

    media_type = NDJSON

    def __init__(self, long_file: LongFileRecognition, context: RequestContext, held: ExitStack) -> None:
        # Without this, nginx would buffer the answer.
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._long_file = long_file
        self._context = context
        self._held = held
        self._started = False  # and not ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Recognise the recording and send the lines."""
        with self._held:
            try:
                await while_connected(receive, self._lines(send))
            except ClientDisconnect:
                self._context.record.outcome = CLIENT_GONE
                raise
            except asyncio.CancelledError:
                # The server cancels what is still running when its grace period is over.
                if self._started:
                    await self._end(send, self._problem(Draining("The service is shutting down.")))
                raise

    async def _lines(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._started = True
        try:
            last: Mapping[str, object] = await self._results(send)
        except Exception as exc:
            last = self._problem(reported(exc, self._context))
        await self._end(send, last)

    async def _results(self, send: Send) -> ResultLine:
        recording = self._long_file.recording
        start: StartLine = {
            "type": "start",
            "id": self._context.id,
            "model": model_summary(self._long_file.model),
            "audio": {"sampling_rate": recording.sampling_rate, "channels": recording.channels},
        }
        await _put(send, start)

        async def put(segment: Segment) -> None:
            line: SegmentLine = {"type": "segment", **segment}
            await _put(send, line)

        totals, timings = await self._long_file.run(put)
        return {"type": "result", **totals.result(), "timings": cast(StageSeconds, timings.by_stage())}

    def _problem(self, error: ServiceError) -> ProblemLine:
        problem = problem_of(error, self._context.id)
        self._context.record.code = problem["code"]
        self._context.record.outcome = problem["status"]
        get_current_span().set_attribute("problem.code", problem["code"])
        return {**problem, "type": "problem"}

    async def _end(self, send: Send, line: Mapping[str, object]) -> None:
        self._started = False
        await send({"type": "http.response.body", "body": _text(line), "more_body": False})


async def _put(send: Send, line: Mapping[str, object]) -> None:
    await send({"type": "http.response.body", "body": _text(line), "more_body": True})


def _text(line: Mapping[str, object]) -> bytes:
    return b"".join([*encode(line), b"\n"])


def wants_lines(accept: Iterable[str]) -> bool:
    """Whether `NDJSON` is named, and no less wanted than `JSON`.

    A range such as `*/*` or `application/*` is no wish for lines, which few programs can read.

    Args:
        accept: the values of all headers of that name.
    """
    qualities = dict(_ranges(",".join(accept)))
    lines = qualities.get(NDJSON, 0.0)
    whole = next((qualities[each] for each in (JSON, "application/*", "*/*") if each in qualities), 0.0)
    return lines > 0 and lines >= whole


def _ranges(accept: str) -> Iterable[tuple[str, float]]:
    """Media ranges and how much each is wanted, from 0 to 1; what cannot be read is left out."""
    for each in accept.split(","):
        media, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((value for part in parameters if (value := part.removeprefix("q=")) != part), "1")
        if media and _QUALITY.fullmatch(quality):
            yield media, float(quality)
