"""What every recognition begins with: the body within its time, and the options from query and form."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from service.api.request_body import FORM, Upload, is_raw, media_type, read_form, read_raw
from service.api.request_context import Services, request_context
from service.errors import InvalidOptions, StorageFull, UnsupportedMediaType
from service.recognition.cache import Reuse
from service.recognition.concurrency import within
from service.recognition.options import Options, parse_options

logger = logging.getLogger(__name__)

_RETRY_AFTER = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """A request that has arrived whole: its files, its options, and what it says of the cache of answers.

    `deadline` is when it must be answered, on the loop's clock.
    """

    upload: Upload
    options: Options
    deadline: float
    reuse: Reuse


async def take_form(request: Request, parts: Services, file_fields: Sequence[str], max_files: int) -> Order:
    """Read a request whose body must be a form.

    Raises:
        InvalidRequest: if the body or the options are not usable.
        DeadlineExceeded, ClientDisconnect: if it does not arrive.
    """
    if media_type(request) != FORM:
        raise UnsupportedMediaType(f"The body must be {FORM}.")
    return await _take_form(request, parts, file_fields, max_files)


async def take_file(request: Request, parts: Services, file_fields: Sequence[str]) -> Order:
    """Read a request whose body is a form with one file, or that file itself.

    Raises:
        InvalidRequest: if the body or the options are not usable.
        DeadlineExceeded, ClientDisconnect: if it does not arrive.
    """
    media = media_type(request)
    if media == FORM:
        return await _take_form(request, parts, file_fields, max_files=1)
    if not is_raw(media):
        raise UnsupportedMediaType(
            f"The body must be {FORM} with a part named {file_fields[0]}, or the audio itself under a content type "
            "such as audio/wav or application/octet-stream."
        )
    options = parse_options(request.query_params.multi_items())
    deadline = _deadline(request, parts, options)
    return Order(await _upload(request, parts, deadline, read_raw(request)), options, deadline, _reuse(request))


async def _take_form(request: Request, parts: Services, file_fields: Sequence[str], max_files: int) -> Order:
    latest = _latest(request, parts)
    upload = await _upload(request, parts, latest, read_form(request, file_fields, max_files))
    try:
        options = parse_options(request.query_params.multi_items(), upload.fields)
    except InvalidOptions:
        with upload:
            raise
    return Order(upload, options, _deadline(request, parts, options), _reuse(request))


async def _upload(request: Request, parts: Services, deadline: float, reading: Coroutine[Any, Any, Upload]) -> Upload:
    notes = request_context(request.scope).notes
    try:
        async with within(deadline):
            upload = await reading
    except ClientDisconnect:
        parts.metrics.requests_cancelled.inc()
        raise
    except OSError as error:  # spooling is all that touches the disk here, and what fails is the server's trouble
        logger.error("an upload cannot be spooled: %s", error)
        parts.metrics.requests_rejected.labels(StorageFull.code).inc()
        raise StorageFull("There is no room for the upload now; try again later.", _RETRY_AFTER) from None
    notes.files = len(upload)
    if parts.settings.log_file_names:
        notes.file_names = upload.names()
    return upload


def _deadline(request: Request, parts: Services, options: Options) -> float:
    limit = parts.settings.segment_timeout if options.granularity == "segment" else parts.settings.timeout
    return request_context(request.scope).arrival + (limit if options.timeout is None else min(limit, options.timeout))


def _latest(request: Request, parts: Services) -> float:
    """The deadline as long as nobody knows what a form will ask for."""
    return request_context(request.scope).arrival + max(parts.settings.timeout, parts.settings.segment_timeout)


def _reuse(request: Request) -> Reuse:
    return Reuse.asked(request.headers.get("cache-control", ""))
