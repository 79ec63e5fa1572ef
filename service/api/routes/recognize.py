"""`POST /recognize`: the emotions of one file."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.callers import caller_of
from service.api.openapi import AUDIO_ERRORS, LINES, REQUEST_ERRORS, file_body, option_parameters
from service.api.problems import documented
from service.api.request_body import ReceivedRequest, receive_file
from service.api.request_context import RequestContext, Services, UntilSent, request_context, services, show_progress
from service.api.responses import answer_response, while_connected
from service.api.schemas import Answer, SegmentedAnswer
from service.api.segment_response import answer_segments
from service.recognition.answers import model_summary
from service.recognition.file import FileRecognition
from service.settings.settings import Settings

FILE_FIELDS = ("file", "audio")


def recognize_router(settings: Settings) -> APIRouter:
    """The router, with the limit on bodies from `settings`."""
    router = APIRouter(max_body_size=settings.max_body_bytes)
    router.add_api_route(
        "/recognize",
        recognize,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotions in one file",
        response_model=Answer | SegmentedAnswer,
        responses={**LINES, **documented(*REQUEST_ERRORS, *AUDIO_ERRORS)},
        openapi_extra={"parameters": option_parameters(), "requestBody": file_body(FILE_FIELDS)},
    )
    return router


async def recognize(request: Request, until_sent: UntilSent) -> Response:
    """Send one audio file, as the part `file` of a form or as the body itself, and get its emotions.

    Options are form fields, or query parameters of the same names. Scores are in the order of the model's labels, or
    in that of `labels`, and sum to one. All times are in seconds of the uploaded file. Only what was asked for is in
    the answer; `audio.speech` is null where the clip is silent, which is then scored as a whole. With `channels=split`
    the result of each channel is in `channels`, and no other is given.

    With `granularity=segment` each utterance has its own result, and the overall one is their mean, weighted by how
    long they last. Under `Accept: application/x-ndjson` the answer is a stream of lines: `start`, a `segment` for each
    as soon as it is known, in order of their ends, and last the `result`, or a `problem`.
    """
    parts = services(request)
    recognizer = parts.core.recognizer
    context, caller = request_context(request.scope), caller_of(request.scope)
    in_segments = request.query_params.get("granularity") == "segment"
    # The permits come first, so that an overloaded service refuses before it reads a body. They are kept until the
    # answer was sent, since it takes memory until then.
    until_sent.enter_context(recognizer.admit_request(caller))
    if in_segments:
        until_sent.enter_context(recognizer.admit_recording(caller))
    until_sent.enter_context(show_progress(parts, context))
    with await receive_file(request, FILE_FIELDS) as received:
        if received.options.granularity != "segment":
            answer = _answer(parts, received, context)
        else:
            if not in_segments:  # the option is in the form
                until_sent.enter_context(recognizer.admit_recording(caller))
            answer = answer_segments(request, received, until_sent)
        return await while_connected(request.receive, answer)


async def _answer(parts: Services, received: ReceivedRequest, context: RequestContext) -> Response:
    files = FileRecognition(parts.core, received.options, received.deadline, context.progress, received.cache_control)
    file = await files.run(received.files.popleft().file)
    answer: Answer = {"id": context.id, "model": model_summary(files.model), **file.result}
    large = received.options.over_time
    return await answer_response(parts.core.threads, answer, file.timings, large=large, cached=file.cached)
