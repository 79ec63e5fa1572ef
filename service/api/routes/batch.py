"""`POST /recognize/batch`: a result or a problem for each of several files."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.callers import caller_of
from service.api.openapi import REQUEST_ERRORS, files_body, option_parameters
from service.api.problems import documented, problem_of, reported
from service.api.request_body import ReceivedRequest, receive_form
from service.api.request_context import RequestContext, Services, UntilSent, request_context, services, show_progress
from service.api.responses import answer_response, while_connected
from service.api.schemas import BatchAnswer, BatchItem
from service.errors import FieldError
from service.recognition.answers import model_summary
from service.recognition.concurrency import all_of
from service.recognition.file import FileAnswer, FileRecognition
from service.recognition.options import invalid_options
from service.results import Timings
from service.settings.settings import Settings

FILE_FIELD = "files"
_MAX_PARALLEL = 16

_NOT_IN_A_BATCH = FieldError(
    "granularity", "cannot be segment in a batch; send each file to /recognize by itself", "not_in_a_batch"
)
"""A batch is answered with one document, which dozens of long recordings would make too large."""


def batch_router(settings: Settings) -> APIRouter:
    """The router, with the limits on bodies and files from `settings`."""
    router = APIRouter(max_body_size=settings.max_body_bytes)
    router.add_api_route(
        "/recognize/batch",
        recognize_batch,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotions in several files",
        response_model=BatchAnswer,
        responses=documented(*REQUEST_ERRORS),
        openapi_extra={
            "parameters": option_parameters(batch=True),
            "requestBody": files_body(FILE_FIELD, settings.max_files),
        },
    )
    return router


async def recognize_batch(request: Request, until_sent: UntilSent) -> Response:
    """Send several audio files, each as a part `files` of one form, with the same options for all.

    `items` has one entry for each file, in their order: a `result` as `POST /recognize` gives it, or a `problem`. The
    answer is 200 also where every file has a problem; other statuses concern the request as a whole.
    """
    parts = services(request)
    context = request_context(request.scope)
    until_sent.enter_context(parts.core.recognizer.admit_request(caller_of(request.scope)))  # as in recognize
    with show_progress(parts, context):
        received = await receive_form(request, (FILE_FIELD,), parts.settings.max_files)
        with received:
            if received.options.granularity == "segment":
                raise invalid_options(_NOT_IN_A_BATCH)
            return await while_connected(request.receive, _answer(parts, received, context))


async def _answer(parts: Services, received: ReceivedRequest, context: RequestContext) -> Response:
    files = FileRecognition(parts.core, received.options, received.deadline, context.progress, received.cache_control)
    items: list[BatchItem] = []
    done: list[FileAnswer] = []

    async def recognize_files() -> None:
        while received.files:
            file = received.files.popleft()
            item: BatchItem = {"index": len(items), "filename": file.filename or ""}
            items.append(item)
            try:
                done.append(answered := await files.run(file.file))
                item["result"] = answered.result
            except Exception as exc:
                context.failed_files += 1
                item["problem"] = problem_of(reported(exc, context), context.id)

    # As many files may be decoded or queued at a time: one batch must not fill the queue.
    parallel = max(1, int(parts.settings.max_queue_seconds / parts.settings.longest_clip / 2))
    await all_of(recognize_files() for _ in range(min(parallel, _MAX_PARALLEL, len(received.files))))
    answer: BatchAnswer = {"id": context.id, "model": model_summary(files.model), "items": items}
    timings = Timings.longest(file.timings for file in done)
    cached = None if parts.core.cache is None else len(done) == len(items) and all(file.cached for file in done)
    return await answer_response(parts.core.threads, answer, timings, large=received.options.over_time, cached=cached)
