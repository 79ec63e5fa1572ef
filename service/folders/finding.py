"""Finds the audio files that command-line arguments name: files, and directories that contain them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3g2", ".3ga", ".3gp", ".3gp2", ".3gpp", ".3gpp2", ".aac", ".adts", ".aif", ".aifc", ".aiff", ".amr", ".asf",
    ".au", ".awb", ".bwf", ".caf", ".f4a", ".f4v", ".flac", ".gsm", ".m2ts", ".m4a", ".m4b", ".m4r", ".m4v", ".mka",
    ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpa", ".mpga", ".oga", ".ogg", ".ogv", ".ogx", ".opus", ".qt",
    ".rf64", ".snd", ".spx", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv",
})
# fmt: on
"""Suffixes of the formats that are decoded, for directories; files named as arguments may have any name."""

_AMBIGUOUS_SUFFIXES = frozenset({".mts", ".ts"})
"""Suffixes of MPEG transport streams, but also of TypeScript: in directories, their first bytes are looked at."""

_TS_SYNC = b"G"
_TS_PACKETS = ((0, 188), (4, 192))
"""Where the first packet of a transport stream has its sync byte, and the size of packets; cameras prepend a time."""


STANDARD_INPUT = Path("/dev/stdin")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that is to be recognised.

    Attributes:
        path: the argument, or the path below it.
        name: the path relative to the listing's root, with `/`; bytes that are not UTF-8 are escaped.
        size: bytes; None, as `modified`, if the file does not exist or is not accessible.
        modified: seconds since 1970.
        is_pipe: whether it is a pipe or a device, such as standard input.
        copy: the copy that is read in place of a pipe.
    """

    path: Path
    name: str
    size: int | None
    modified: float | None
    is_pipe: bool = False
    copy: Path | None = None

    @property
    def readable_path(self) -> Path:
        """Where the audio is."""
        return self.copy or self.path


@dataclass(frozen=True, slots=True)
class Listing:
    """All files, each once, in the order of the arguments and, within a directory, of names.

    Attributes:
        root: the deepest directory that contains all arguments; a directory that is the only argument is its own root.
        unreadable: directories that could not be read, each with the reason.
    """

    root: Path
    files: tuple[FoundFile, ...]
    unreadable: tuple[str, ...]


def find_files(arguments: Sequence[Path]) -> Listing:
    """List the files of the arguments. Hidden files and directories are skipped; each directory is visited once."""
    root = _root(arguments)
    unreadable: list[str] = []
    found: dict[str, FoundFile] = {}
    for argument in arguments:
        for path in _walk(argument, unreadable) if argument.is_dir() else (argument,):
            name = _name(path, root)
            if name not in found:
                found[name] = _found_file(path, name)
    return Listing(root, tuple(found.values()), tuple(unreadable))


def _root(arguments: Sequence[Path]) -> Path:
    parents = [Path(os.path.abspath(each if each.is_dir() else each.parent)) for each in arguments]  # noqa: PTH100
    return Path(os.path.commonpath(parents))  # abspath, not resolve, which would replace the names of links


def _walk(directory: Path, unreadable: list[str]) -> Iterator[Path]:
    """Audio files below a directory, by name; every directory once, even if several links lead to it."""
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(f"{text_of(current)}: {error.strerror}")
            continue
        below: list[Path] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                below.append(Path(entry))
            elif _may_be_audio(entry):
                yield Path(entry)
        waiting.extend(reversed(below))


def _may_be_audio(entry: os.DirEntry[str]) -> bool:
    suffix = Path(entry.name).suffix.lower()
    if suffix in _AMBIGUOUS_SUFFIXES:
        return _is_transport_stream(entry)
    # A broken link is reported as an unreadable file.
    return suffix in AUDIO_SUFFIXES and (entry.is_symlink() or entry.is_file())


def _is_transport_stream(entry: os.DirEntry[str]) -> bool:
    """Whether the first two packets of a file begin as those of an MPEG transport stream; false if it is unreadable."""
    try:
        if not entry.is_file():  # opening a pipe would wait for a writer
            return False
        with Path(entry).open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return any(head[at : at + 1] == head[at + size : at + size + 1] == _TS_SYNC for at, size in _TS_PACKETS)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def path_argument(text: str) -> Path:
    """The path that an argument names; `-` is standard input, and `./-` a file of that name."""
    return STANDARD_INPUT if text == "-" else Path(text)


def text_of(path: Path) -> str:
    """A path as text that can be printed and encoded: UTF-8 whatever the locale is, with other bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _name(path: Path, root: Path) -> str:
    return text_of(Path(os.path.relpath(path, root)))


def _found_file(path: Path, name: str) -> FoundFile:
    try:
        status = path.stat()
    except OSError:  # reading the file will fail too, and report the reason
        return FoundFile(path, name, None, None)
    is_pipe = not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
    return FoundFile(path, name, status.st_size, round(status.st_mtime, 6), is_pipe)
