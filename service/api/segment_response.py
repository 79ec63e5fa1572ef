"""The HTTP side of `granularity=segment`: one JSON document at the end, or lines as soon as they are known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack

from opentelemetry.trace import get_current_span
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.accept import NDJSON, wants_lines
from service.api.problems import problem_of, reported
from service.api.received_request import Order
from service.api.request_context import CLIENT_GONE, RequestContext, Services, request_context
from service.api.responses import answer_response
from service.api.schemas import ProblemLine, ResultLine, Segment, SegmentedAnswer, SegmentLine, StartLine
from service.errors import Draining, ServiceError
from service.recognition.answers import model_summary
from service.recognition.concurrency import while_connected
from service.recognition.json_encoding import encode, encoded
from service.recognition.long_file import SegmentPipeline
from service.recognition.progress import RequestProgress
from service.recognition.recording import KeptSegments


async def answer_segments(
    request: Request, parts: Services, order: Order, progress: RequestProgress, held: ExitStack
) -> Response:
    """Answer a request that has arrived whole.

    Args:
        request: it, whose `Accept` decides on the form.
        parts: the parts of the application.
        order: the file and its options.
        progress: where to note what is being done.
        held: what the request holds until its answer has left; streams take it along.

    Raises:
        ServiceError: if the beginning of the file already shows that there is no answer; later too, for the form that
            is sent whole.
        ClientDisconnect: if the client leaves.
    """
    context = request_context(request.scope)
    file = order.upload.take().file
    try:
        pipeline = SegmentPipeline(parts, file, order.options, order.deadline, context.notes, progress)
    except BaseException:
        file.close()
        raise
    held.callback(pipeline.close)
    await while_connected(request.receive, pipeline.open())
    if wants_lines(request.headers.getlist("accept")):
        return SegmentStream(pipeline, context, held.pop_all())
    return await while_connected(request.receive, _whole(parts, pipeline, context))


async def _whole(parts: Services, pipeline: SegmentPipeline, context: RequestContext) -> Response:
    kept = KeptSegments()

    async def keep(segment: Segment) -> None:
        kept.put(segment, encoded(segment))

    tally, timings = await pipeline.run(keep)
    answer: SegmentedAnswer = {"id": context.id, "model": model_summary(pipeline.model), **tally.result(kept)}
    return await answer_response(parts.pool, answer, timings, large=True, cached=None)


class SegmentStream(StreamingResponse):
    """An answer as lines of JSON, each sent as soon as it is known; `service.api.schemas.Line` describes them.

    What the client does not read holds up the work: no line is made before the one before has been taken, and
    `service.api.server.answer_timeout` ends connections that are not read at all.

    Args:
        pipeline: an opened recording.
        context: of the request.
        held: closed when the answer has left, or cannot leave any more.
    """

    media_type = NDJSON

    def __init__(self, pipeline: SegmentPipeline, context: RequestContext, held: ExitStack) -> None:
        # nginx collects answers unless it is told not to.
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._pipeline = pipeline
        self._context = context
        self._held = held
        self._under_way = False  # begun, and not ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work and send it."""
        with self._held:
            try:
                await while_connected(receive, self._lines(send))
            except ClientDisconnect:
                self._context.notes.outcome = CLIENT_GONE
                raise
            except asyncio.CancelledError:
                # The server gives up on what is still running when its grace is over.
                if self._under_way:
                    await self._end(send, self._problem(Draining("The service is shutting down.")))
                raise

    async def _lines(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._under_way = True
        try:
            last: Mapping[str, object] = await self._results(send)
        except Exception as exc:
            last = self._problem(reported(exc, self._context))
        await self._end(send, last)

    async def _results(self, send: Send) -> ResultLine:
        recording = self._pipeline.recording
        start: StartLine = {
            "type": "start",
            "id": self._context.id,
            "model": model_summary(self._pipeline.model),
            "audio": {"sampling_rate": recording.sampling_rate, "channels": recording.channels},
        }
        await _put(send, start)

        async def put(segment: Segment) -> None:
            line: SegmentLine = {"type": "segment", **segment}
            await _put(send, line)

        tally, timings = await self._pipeline.run(put)
        return {
            "type": "result",
            **tally.result(),
            "timings": {
                "decode": timings.decode,
                "queue": timings.queue,
                "preprocess": timings.preprocess,
                "inference": timings.inference,
            },
        }

    def _problem(self, error: ServiceError) -> ProblemLine:
        problem = problem_of(error, self._context.id)
        self._context.notes.code = problem["code"]
        self._context.notes.outcome = problem["status"]
        get_current_span().set_attribute("problem.code", problem["code"])
        return {**problem, "type": "problem"}

    async def _end(self, send: Send, line: Mapping[str, object]) -> None:
        self._under_way = False
        await send({"type": "http.response.body", "body": _text(line), "more_body": False})


async def _put(send: Send, line: Mapping[str, object]) -> None:
    await send({"type": "http.response.body", "body": _text(line), "more_body": True})


def _text(line: Mapping[str, object]) -> bytes:
    return b"".join([*encode(line), b"\n"])
