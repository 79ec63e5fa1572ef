"""Reading a request's body: multipart forms and raw audio, spooled to disk, never held whole in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Self, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import FieldError, MalformedBody
from service.recognition.options import MAX_FIELDS, Options, invalid_options, unknown_field

FORM = "multipart/form-data"
RAW = ("audio/*", "application/octet-stream", "video/mp4", "video/webm", "video/3gpp")
"""Content types of raw bodies. Browsers and phones name sound-only recordings as video."""

_SPOOL = 1024 * 1024
_MAX_NAME = 255
_MAX_FIELD_BYTES = 16 * 1024
_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")


class Upload:
    """A body that has arrived: its files, and the text fields beside them.

    A file is its taker's to close. Those that nobody took are closed on leaving the upload's context.
    """

    def __init__(self, files: Iterable[UploadFile], fields: Iterable[tuple[str, str]] = ()) -> None:
        self._files = deque(files)
        self.fields = tuple(fields)

    def __len__(self) -> int:
        """How many files nobody has taken yet."""
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
        """What the client calls those that nobody has taken yet, cut and made fit for logs."""
        names = (file.filename[:_MAX_NAME] for file in self._files if file.filename)
        return [name.encode(errors="replace").decode() for name in names]


class _WholeFormParser(MultiPartParser):
    """Starlette's parser, which by itself takes a form that is cut off for one without the last field."""

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


def media_type(request: Request) -> str:
    """The content type without parameters, in lower case; empty where there is none."""
    return parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")


def is_raw(media: str) -> bool:
    """Whether a body of this type is one file."""
    return media in RAW or media.startswith("audio/")


async def read_raw(request: Request) -> Upload:
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


async def read_form(request: Request, file_fields: Sequence[str], max_files: int) -> Upload:
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
