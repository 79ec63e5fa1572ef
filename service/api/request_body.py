"""Read a request: its body within its time, spooled to disk and never held whole in memory, and its options.

A body is a multipart form with files and options, or one file itself with the options in the query.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Self, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.api.request_context import Services, request_context
from service.errors import FieldError, InvalidOptions, MalformedBody, StorageFull, UnsupportedMediaType
from service.recognition.cache import CacheControl
from service.recognition.concurrency import within
from service.recognition.options import MAX_FIELDS, Options, invalid_options, parse_options, unknown_field

logger = logging.getLogger(__name__)

FORM = "multipart/form-data"
RAW = ("audio/*", "application/octet-stream", "video/mp4", "video/webm", "video/3gpp")
"""Content types of raw bodies. Browsers and phones name sound-only recordings as video."""

_RETRY_AFTER = 10.0
_SPOOL = 1024 * 1024
_MAX_NAME = 255
_MAX_FIELD_BYTES = 16 * 1024
_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")


class Upload:
    """A body that has arrived: its files, and the text fields beside them.

    Whoever takes a file closes it. Files that were not taken are closed on leaving the upload's context.
    """

    def __init__(self, files: Iterable[UploadFile], fields: Iterable[tuple[str, str]] = ()) -> None:
        self._files = deque(files)
        self.fields = tuple(fields)

    def __len__(self) -> int:
        """How many files have not been taken yet."""
        return len(self._files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.file.close()

    def take(self) -> UploadFile:
        """The next file."""
        return self._files.popleft()

    def names(self) -> list[str]:
        """What the client calls those that have not been taken yet, shortened and fit for logs."""
        names = (file.filename[:_MAX_NAME] for file in self._files if file.filename)
        return [name.encode(errors="replace").decode() for name in names]


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that has arrived whole: its files, its options, and what it lets the cache of answers do.

    `deadline` is when it must be answered, on the loop's clock.
    """

    upload: Upload
    options: Options
    deadline: float
    cache_control: CacheControl


async def receive_form(
    request: Request, services: Services, file_fields: Sequence[str], max_files: int
) -> ReceivedRequest:
    """Read a request whose body must be a form.

    Raises:
        InvalidRequest: if the body or the options are not usable.
        DeadlineExceeded, ClientDisconnect: if it does not arrive.
    """
    if _media_type(request) != FORM:
        raise UnsupportedMediaType(f"The body must be {FORM}.")
    return await _receive_form(request, services, file_fields, max_files)


async def receive_file(request: Request, services: Services, file_fields: Sequence[str]) -> ReceivedRequest:
    """Read a request whose body is a form with one file, or that file itself.

    Raises:
        InvalidRequest: if the body or the options are not usable.
        DeadlineExceeded, ClientDisconnect: if it does not arrive.
    """
    media = _media_type(request)
    if media == FORM:
        return await _receive_form(request, services, file_fields, max_files=1)
    if not _is_raw(media):
        raise UnsupportedMediaType(
            f"The body must be {FORM} with a part named {file_fields[0]}, or the audio itself under a content type "
            "such as audio/wav or application/octet-stream."
        )
    options = parse_options(request.query_params.multi_items())
    deadline = _deadline(request, services, options)
    return ReceivedRequest(
        await _upload(request, services, deadline, _read_raw(request)), options, deadline, _cache_control(request)
    )


async def _receive_form(
    request: Request, services: Services, file_fields: Sequence[str], max_files: int
) -> ReceivedRequest:
    latest = _latest(request, services)
    upload = await _upload(request, services, latest, _read_form(request, file_fields, max_files))
    try:
        options = parse_options(request.query_params.multi_items(), upload.fields)
    except InvalidOptions:
        with upload:
            raise
    return ReceivedRequest(upload, options, _deadline(request, services, options), _cache_control(request))


async def _upload(
    request: Request, services: Services, deadline: float, reading: Coroutine[Any, Any, Upload]
) -> Upload:
    context = request_context(request.scope)
    try:
        async with within(deadline):
            upload = await reading
    except ClientDisconnect:
        services.core.observer.request_cancelled()
        raise
    except OSError as error:  # only spooling touches the disk here, and it is the server that fails
        logger.error("an upload cannot be spooled: %s", error)
        services.core.observer.request_refused(StorageFull.code)
        raise StorageFull("There is no room for the upload now; try again later.", _RETRY_AFTER) from None
    context.progress.received = True
    context.record.files = len(upload)
    if services.settings.log_file_names:
        context.record.file_names = upload.names()
    return upload


def _deadline(request: Request, services: Services, options: Options) -> float:
    limit = services.settings.segment_timeout if options.granularity == "segment" else services.settings.timeout
    return request_context(request.scope).arrival + (limit if options.timeout is None else min(limit, options.timeout))


def _latest(request: Request, services: Services) -> float:
    """The deadline until the form has arrived and says which granularity it asks for."""
    return request_context(request.scope).arrival + max(services.settings.timeout, services.settings.segment_timeout)


def _cache_control(request: Request) -> CacheControl:
    return CacheControl.parse(request.headers.get("cache-control", ""))


class _WholeFormParser(MultiPartParser):
    """Starlette's parser, which by itself accepts a form that is cut off, without its last field."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], max_files: int) -> None:
        super().__init__(
            headers,
            self._until_end(stream),
            max_files=max_files,
            max_fields=MAX_FIELDS,
            max_part_size=_MAX_FIELD_BYTES,
        )
        self._ended = False

    def on_end(self) -> None:
        """The last boundary has come."""
        self._ended = True

    async def _until_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("The form is cut off.")  # from here it closes the files that it has begun


def _media_type(request: Request) -> str:
    """The content type without parameters, in lower case; empty where there is none."""
    return parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")


def _is_raw(media: str) -> bool:
    """Whether a body of this type is one file."""
    return media in RAW or media.startswith("audio/")


async def _read_raw(request: Request) -> Upload:
    """Read a body that is one file."""
    file = UploadFile(cast(BinaryIO, SpooledTemporaryFile(max_size=_SPOOL)), size=0)  # noqa: SIM115  # Upload closes it
    try:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                await file.write(chunk)  # goes to a thread once it is on disk
        await file.seek(0)
    except BaseException:
        file.file.close()
        raise
    return Upload([file])


async def _read_form(request: Request, file_fields: Sequence[str], max_files: int) -> Upload:
    """Read a multipart form.

    Args:
        request: whose body to read.
        file_fields: names under which files may come; the first is the one to recommend.
        max_files: how many files may come.

    Raises:
        MalformedBody: if the body is not a form, has too many or too long fields, or is in an unusual charset.
        InvalidOptions: if a file has another name, or comes as text, or there are none or too many of them.
    """
    _, parameters = parse_options_header(request.headers.get("content-type"))
    if parameters.get(b"charset", b"utf-8").decode("latin-1").lower() not in _CHARSETS:
        # Python knows charsets (punycode) that take seconds to decode, and would on the event loop.
        raise MalformedBody("The form's charset must be UTF-8.")
    try:
        async with aclosing(request.stream()) as stream:
            form = await _WholeFormParser(request.headers, stream, max_files).parse()
    except MultiPartException as exc:
        if exc.message.startswith("Too many files"):
            raise invalid_options(FieldError(file_fields[0], _too_many(max_files), "repeated")) from None
        raise MalformedBody("The form is broken or cut off, or has too many or too long fields.") from None
    items = form.multi_items()
    files = [(name, value) for name, value in items if isinstance(value, UploadFile)]
    fields = [(name, value) for name, value in items if isinstance(value, str)]
    errors = [_misplaced_file(name, file_fields) for name, _ in files if name not in file_fields]
    errors += [
        FieldError(name, "must be a file: give the part a filename", "not_a_file")
        for name, _ in fields
        if name in file_fields
    ]
    if not files and not errors:
        errors.append(FieldError(file_fields[0], "is missing", "missing"))
    upload = Upload((file for _, file in files), fields)
    if errors:
        with upload:
            raise invalid_options(*errors)
    return upload


def _misplaced_file(name: str, file_fields: Sequence[str]) -> FieldError:
    if name in Options.model_fields:
        return FieldError(name, "must be text, not a file", "invalid")
    return unknown_field(name, file_fields)


def _too_many(max_files: int) -> str:
    return "may be given only once" if max_files == 1 else f"may be given {max_files} times at most"
