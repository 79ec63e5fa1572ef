"""Finds the audio files that command-line arguments name: files, and directories that contain them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".asf", ".au", ".awb", ".caf", ".flac", ".gsm", ".m4a",
    ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav", ".wave", ".weba", ".webm",
    ".wma",
})
# fmt: on
"""Suffixes of audio files that are looked for in directories; files named as arguments may have any name."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that is to be recognised.

    Attributes:
        path: the argument, or the path below it.
        name: the path relative to the listing's root, with `/`; bytes that are not UTF-8 are escaped.
        size: bytes; None, as `modified`, if the file does not exist or is not accessible.
        modified: seconds since 1970.
    """

    path: Path
    name: str
    size: int | None
    modified: float | None


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
            unreadable.append(f"{current}: {error.strerror}")
            continue
        below: list[Path] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                below.append(Path(entry))
            elif Path(entry.name).suffix.lower() in AUDIO_SUFFIXES and (entry.is_symlink() or entry.is_file()):
                yield Path(entry)  # a broken link is reported as an unreadable file
        waiting.extend(reversed(below))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _name(path: Path, root: Path) -> str:
    relative = Path(os.path.relpath(path, root)).as_posix()
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _found_file(path: Path, name: str) -> FoundFile:
    try:
        status = path.stat()
    except OSError:  # reading the file will fail too, and report the reason
        return FoundFile(path, name, None, None)
    return FoundFile(path, name, status.st_size, round(status.st_mtime, 6))
