"""Read the body and the options of a request. Large files are spooled to disk, never held in memory.

A body is a multipart form with files and options, or the bytes of one file, with the options in the query.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Self, cast
from urllib.parse import unquote

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.api.request_context import request_context, services
from service.api.temporary_files import check_temporary_files
from service.errors import (
    FieldError,
    InvalidOptions,
    MalformedBody,
    ServiceError,
    StorageFull,
    StorageUnwritable,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)
from service.recognition.cache import CacheControl
from service.recognition.concurrency import within
from service.recognition.options import MAX_FIELDS, OPTIONS, Options, invalid_options, parse_options, unknown_field

logger = logging.getLogger(__name__)

FORM = "multipart/form-data"
RAW = ("audio/*", "video/*", "application/octet-stream", "application/ogg")
"""Documented content types of raw bodies. Others are taken too, except those of `_is_text_or_form`."""

_RETRY_AFTER = 10.0
_MAX_BYTES_IN_MEMORY = 1024 * 1024
_MAX_LOGGED_NAME = 255
_MAX_FIELD_BYTES = 16 * 1024
_MAX_SHOWN_HEADER = 100
_MAX_PARAMETERS = 64
"""Semicolons in a header. The time to parse one grows with their number times the length of the header."""
_EXTENDED_NAME = re.compile(rb"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")

_Body = tuple[deque[UploadFile], list[tuple[str, str]]]
"""The files of a body, and the names and values of its text fields."""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request whose body has arrived; a context in which its files are open.

    Attributes:
        files: its files; code that removes one must close it, the context closes the others.
        options: its options.
        deadline: when it must be answered, on the event loop's clock.
        cache_control: how it may use the answer cache.
    """

    files: deque[UploadFile]
    options: Options
    deadline: float
    cache_control: CacheControl

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _close(self.files)


async def receive_form(request: Request, file_fields: Sequence[str], max_files: int) -> ReceivedRequest:
    """Read a request whose body must be a form.

    Args:
        request: the request.
        file_fields: allowed field names of files; error messages recommend the first.
        max_files: maximal number of files.

    Raises:
        InvalidRequest: if the body or the options are not valid.
        DeadlineExceeded, ClientDisconnect: if the body does not arrive.
        StorageFull, StorageUnwritable: if the files cannot be spooled.
    """
    media_type, parameters = _content_type(request)
    if media_type != FORM:
        sent = media_type[:_MAX_SHOWN_HEADER] or "a body without a content type"
        raise UnsupportedMediaType(f"The body must be {FORM}, not {sent}.")
    return await _receive_form(request, parameters, file_fields, max_files)


async def _receive_form(
    request: Request, parameters: Mapping[bytes, bytes], file_fields: Sequence[str], max_files: int
) -> ReceivedRequest:
    settings = services(request).settings
    # Only the form itself says which granularity is asked for, on which the deadline depends.
    latest = request_context(request.scope).arrival + max(settings.timeout, settings.segment_timeout)
    files, fields = await _receive(request, latest, _read_form(request, parameters, file_fields, max_files))
    try:
        options = parse_options(request.query_params.multi_items(), fields)
    except InvalidOptions:
        _close(files)
        raise
    return _received(request, files, options)


async def receive_file(request: Request, file_fields: Sequence[str]) -> ReceivedRequest:
    """Read a request whose body is a form with one file, or the bytes of that file.

    Args:
        request: the request.
        file_fields: allowed field names of the file; error messages recommend the first.

    Raises:
        InvalidRequest: if the body or the options are not valid.
        DeadlineExceeded, ClientDisconnect: if the body does not arrive.
        StorageFull, StorageUnwritable: if the file cannot be spooled.
    """
    media_type, parameters = _content_type(request)
    if media_type == FORM:
        return await _receive_form(request, parameters, file_fields, max_files=1)
    if _is_text_or_form(media_type):
        raise UnsupportedMediaType(
            f"The body must be {FORM} with a part named {file_fields[0]}, or the audio itself under a content type "
            f"such as audio/wav or application/octet-stream, not {media_type[:_MAX_SHOWN_HEADER]}."
        )
    options = parse_options(request.query_params.multi_items())
    files, _ = await _receive(request, _deadline(request, options), _read_raw(request))
    return _received(request, files, options)


async def _receive(request: Request, deadline: float, reading: Coroutine[Any, Any, _Body]) -> _Body:
    """Await `reading` until `deadline`, and record the files in the request's context."""
    context, parts = request_context(request.scope), services(request)
    try:
        async with within(deadline):
            files, fields = await reading
    except ClientDisconnect:
        parts.core.observer.request_cancelled()
        raise
    except OSError as error:  # from spooling, which alone uses the disk here
        logger.error("an upload cannot be spooled: %s", error)
        refusal = _storage_error()
        parts.core.observer.request_refused(refusal.code)
        raise refusal from None
    context.progress.received = True
    context.files = len(files)
    if parts.settings.log_file_names:
        names = (file.filename[:_MAX_LOGGED_NAME] for file in files if file.filename)
        context.file_names = [name.encode(errors="replace").decode() for name in names]
    return files, fields


def _close(files: Iterable[UploadFile]) -> None:
    for file in files:
        file.file.close()


def _deadline(request: Request, options: Options) -> float:
    settings = services(request).settings
    limit = settings.segment_timeout if options.granularity == "segment" else settings.timeout
    return request_context(request.scope).arrival + (limit if options.timeout is None else min(limit, options.timeout))


def _received(request: Request, files: deque[UploadFile], options: Options) -> ReceivedRequest:
    cache_control = CacheControl.parse(request.headers.get("cache-control", ""))
    return ReceivedRequest(files, options, _deadline(request, options), cache_control)


class _FormParser(MultiPartParser):
    """Starlette's parser, made to reject a truncated form, and to accept files without `filename`.

    By itself it accepts a truncated form, without its last field, and takes a part without `filename` for text. Many
    programs send a file so: a part with the name of a file is one if it has a `filename*` (RFC 8187), or is not text.
    """

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], file_fields: Sequence[str], max_files: int
    ) -> None:
        super().__init__(
            headers,
            self._until_end(stream),
            max_files=max_files,
            max_fields=MAX_FIELDS,
            max_part_size=_MAX_FIELD_BYTES,
        )
        self._file_fields = file_fields
        self._ended = False

    def on_headers_finished(self) -> None:
        """The headers of a part have arrived."""
        part = self._current_part
        if (part.content_disposition or b"").count(b";") > _MAX_PARAMETERS:
            raise MultiPartException("The headers of a part have too many parameters.")
        super().on_headers_finished()
        name = _EXTENDED_NAME.search(part.content_disposition or b"")
        if part.file is None and name is not None:
            self._take_for_file(unquote(name[1].decode("latin-1")))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part has arrived."""
        part = self._current_part
        if part.file is None and part.field_name in self._file_fields:
            long = len(part.data) + end - start > self.max_part_size
            if long or _NOT_TEXT.search(data, start, end):
                begun = bytes(part.data)
                self._take_for_file("")
                self._file_parts_to_write.append((part, begun))
        super().on_part_data(data, start, end)

    def _take_for_file(self, name: str) -> None:
        """Make the current part, which was taken for text, a file."""
        part = self._current_part
        self._current_fields -= 1
        part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()
        cast(UploadFile, part.file).filename = name

    def on_end(self) -> None:
        """The parser has found the last boundary."""
        self._ended = True

    async def _until_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("The form is cut off.")  # raised inside the parser, which then closes its files


def _content_type(request: Request) -> tuple[str, Mapping[bytes, bytes]]:
    """The media type of the body in lower case, empty if none is given, and its parameters.

    Raises:
        UnsupportedContentEncoding: if the body is compressed. Decoding it would need limits of its own, and formats
            such as FLAC make audio smaller than gzip does.
        MalformedBody: if it has too many parameters.
    """
    codings = [coding.strip() for coding in ",".join(request.headers.getlist("content-encoding")).split(",")]
    if any(coding.lower() not in ("", "identity") for coding in codings):
        shown = ", ".join(filter(None, codings))[:_MAX_SHOWN_HEADER]
        raise UnsupportedContentEncoding(f"The content encoding {shown} is not supported. Send the body uncompressed.")
    value = request.headers.get("content-type", "")
    if value.count(";") > _MAX_PARAMETERS:
        raise MalformedBody("The content type has too many parameters.")
    media_type, parameters = parse_options_header(value)
    return media_type.decode("latin-1"), parameters


def _storage_error() -> ServiceError:
    """Why an upload could not be spooled."""
    try:
        check_temporary_files()
    except StorageUnwritable as error:
        return error
    return StorageFull("There is no room for the upload now; try again later.", _RETRY_AFTER)


def _is_text_or_form(media_type: str) -> bool:
    """Whether a body of this type was surely not meant as audio. Clients give audio many types, or none."""
    return (
        media_type.startswith(("text/", "multipart/"))
        or media_type.endswith(("json", "xml"))
        or media_type == "application/x-www-form-urlencoded"
    )


async def _read_raw(request: Request) -> _Body:
    """Read a body that is one file."""
    spooled = SpooledTemporaryFile(max_size=_MAX_BYTES_IN_MEMORY)  # noqa: SIM115  # ReceivedRequest closes it
    file = UploadFile(cast(BinaryIO, spooled), size=0)
    try:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                await file.write(chunk)  # in a thread once the file is on disk
        await file.seek(0)
    except BaseException:
        file.file.close()
        raise
    return deque([file]), []


async def _read_form(
    request: Request, parameters: Mapping[bytes, bytes], file_fields: Sequence[str], max_files: int
) -> _Body:
    """Read a multipart form; `parameters` are those of its content type, see `receive_form` for the others.

    Raises:
        MalformedBody: if the body is not a form, has too many or too long fields, or an unsupported charset.
        InvalidOptions: if a file has another field name or is sent as text, or if there is none or too many.
    """
    if parameters.get(b"charset", b"utf-8").decode("latin-1").lower() not in _CHARSETS:
        # Some of Python's charsets (punycode) take seconds to decode, which would block the event loop.
        raise MalformedBody("The form's charset must be UTF-8.")
    try:
        async with aclosing(request.stream()) as stream:
            form = await _FormParser(request.headers, stream, file_fields, max_files).parse()
    except MultiPartException as exc:
        if exc.message.startswith("Too many files"):
            message = "may be given only once" if max_files == 1 else f"may be given {max_files} times at most"
            raise invalid_options(FieldError(file_fields[0], message, "repeated")) from None
        raise MalformedBody("The form is broken or cut off, or has too many or too long fields.") from None
    items = form.multi_items()
    files = [(name, value) for name, value in items if isinstance(value, UploadFile)]
    fields = [(name, value) for name, value in items if isinstance(value, str)]
    errors = [_misplaced_file(name, file_fields) for name, _ in files if name not in file_fields]
    errors += [FieldError(name, "must be a file, not text", "not_a_file") for name, _ in fields if name in file_fields]
    if not files and not errors:
        errors.append(FieldError(file_fields[0], "is missing", "missing"))
    if errors:
        _close(file for _, file in files)
        raise invalid_options(*errors)
    return deque(file for _, file in files), fields


def _misplaced_file(name: str, file_fields: Sequence[str]) -> FieldError:
    if name in OPTIONS:
        return FieldError(name, "must be text, not a file", "invalid")
    return unknown_field(name, file_fields)
