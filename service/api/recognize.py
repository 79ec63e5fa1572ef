"""`POST /recognize`: one file in, its emotions out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.answers import model_summary
from service.api.context import RequestContext, Services, request_context, services
from service.api.intake import Order, take_file
from service.api.openapi import AUDIO_ERRORS, REQUEST_ERRORS, file_body, option_parameters
from service.api.pipeline import Pipeline
from service.api.problems import documented
from service.api.progress import RequestProgress
from service.api.respond import answer_response
from service.api.schemas import Answer
from service.api.work import while_connected
from service.settings import Settings

FILE_FIELDS = ("file", "audio")


def recognize_router(settings: Settings) -> APIRouter:
    """The route, with its limit on bodies."""
    router = APIRouter(max_body_size=settings.max_body_bytes)
    router.add_api_route(
        "/recognize",
        recognize,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotions in one file",
        response_model=Answer,
        responses=documented(*REQUEST_ERRORS, *AUDIO_ERRORS),
        openapi_extra={"parameters": option_parameters(), "requestBody": file_body(FILE_FIELDS)},
    )
    return router


async def recognize(request: Request) -> Response:
    """Send one audio file, as the part `file` of a form or as the body itself, and get its emotions.

    Options are form fields, or query parameters of the same names. Scores are in the order of the model's labels, or
    in that of `labels`, and sum to one. All times are in seconds of the uploaded file. Only what was asked for is in
    the answer; `audio.speech` is null where the clip is silent, which is then scored as a whole. With `channels=split`
    the result of each channel is in `channels`, and no other is given.
    """
    parts = services(request)
    context = request_context(request.scope)
    # The permit comes first: a service that is full refuses before it reads a body.
    with parts.recognizer.admit(), parts.progress.follow(context.id) as progress:
        order = await take_file(request, parts, FILE_FIELDS)
        progress.received = True
        with order.upload:
            return await while_connected(request.receive, _answer(parts, order, context, progress))


async def _answer(parts: Services, order: Order, context: RequestContext, progress: RequestProgress) -> Response:
    pipeline = Pipeline(parts, order.options, order.deadline, order.reuse, context.notes, progress)
    file = await pipeline.run(order.upload.take().file)
    answer: Answer = {"id": context.id, "model": model_summary(pipeline.model), **file.result}
    return await answer_response(parts.pool, answer, file.timings, large=order.options.over_time, cached=file.cached)
