"""Generate `emotion2vec_client/sync_client.py` from `async_client.py`: `make client`.

The two clients differ only in how they wait: unasync derives one from the other by renaming tokens, and ruff then sorts
the imports, writes `yield from` and formats. With `--check` nothing is written, and the exit status is 1 if the file is
out of date.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

_PACKAGE = Path(__file__).with_name("emotion2vec_client")
_SOURCE = _PACKAGE / "async_client.py"
_TARGET = _PACKAGE / "sync_client.py"

_TOKENS = {
    "AsyncBaseTransport": "BaseTransport",
    "AsyncClient": "Client",
    "AsyncHTTPTransport": "HTTPTransport",
    "AsyncRetrying": "Retrying",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_chunks": "iter_chunks",
    "aread": "read",
    "asyncio": "time",
}
"""What unasync replaces besides the language's own names, such as `__aenter__` and `AsyncIterator`."""

_TEXTS = {
    "The client for programs that use asyncio. `sync_client` is generated from this module; see CONTRIBUTING.md.": (
        "The blocking client. Generated from `async_client` by `make client`: change that module instead."
    ),
    "Sends requests to the service from an event loop of asyncio.": (
        "Sends requests to the service and waits for the responses. Thread-safe."
    ),
    "an `async with` statement": "a `with` statement",
    "(`contextlib.aclosing`)": "(`contextlib.closing`)",
}
"""Docstrings that differ."""


def generate() -> str:
    """The source text of `sync_client.py`.

    Raises:
        ValueError: if a text that is to be replaced is not in `async_client.py` exactly once.
    """
    text = _SOURCE.read_text(encoding="utf-8")
    for old, new in _TEXTS.items():
        if text.count(old) != 1:
            raise ValueError(f"not in {_SOURCE.name} exactly once: {old!r}")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "async", "client.py"), Path(folder, "sync", "client.py")
        source.parent.mkdir()
        source.write_text(text, encoding="utf-8")
        unasync.unasync_files([str(source)], [unasync.Rule("/async/", "/sync/", _TOKENS)])
        text = target.read_text(encoding="utf-8")
    for command in (["check", "--select=I,UP028", "--fix", "--unsafe-fixes", "--quiet"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(_TARGET), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    """Write the module, or compare it with `--check`; the exit status."""
    generated = generate()
    if "--check" not in sys.argv[1:]:
        _TARGET.write_text(generated, encoding="utf-8")
    elif _TARGET.read_text(encoding="utf-8") != generated:
        sys.stderr.write(f"{_TARGET.name} is out of date: run `make client`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
