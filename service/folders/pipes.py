"""Audio from pipes, such as standard input: it is copied first, because decoding and sending again need to seek."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from service.errors import SetupError
from service.folders.finding import STANDARD_INPUT, FoundFile, Listing, text_of

_MAX_BYTES = 4 * 2**30
"""Most bytes of a pipe; an endless one must not fill the disk."""

_PIECE_BYTES = 2**20


def open_seekable(path: Path) -> BinaryIO:
    """Open a file for reading. What cannot seek is read to its end, into a temporary file without a name.

    Raises:
        OSError: if it cannot be read or copied.
        SetupError: if it does not end in time.
    """
    # By number, because opening the path again fails for sockets and for pipes of other users.
    file = open(0, "rb", closefd=False) if path == STANDARD_INPUT else path.open("rb")  # noqa: SIM115
    if file.seekable():
        return file
    with file, ExitStack() as stack:
        copy = cast(BinaryIO, stack.enter_context(TemporaryFile()))
        while piece := file.read(_PIECE_BYTES):
            if copy.tell() + len(piece) > _MAX_BYTES:
                raise SetupError(f"{text_of(path)}: more than {_MAX_BYTES >> 30} GiB through a pipe")
            copy.write(piece)
        copy.seek(0)
        stack.pop_all()
        return copy


@contextmanager
def with_copies(listing: Listing) -> Iterator[Listing]:
    """The listing with copies of its pipes, which exist within the context.

    Raises:
        SetupError: if a pipe cannot be copied.
    """
    with ExitStack() as stack:

        def with_copy(found: FoundFile) -> FoundFile:
            if not found.is_pipe:
                return found
            try:
                file = stack.enter_context(open_seekable(found.path))
            except OSError as error:
                raise SetupError(f"{text_of(found.path)} cannot be copied: {error.strerror or error}") from error
            return replace(found, copy=Path(f"/dev/fd/{file.fileno()}"))

        yield replace(listing, files=tuple(with_copy(found) for found in listing.files))
