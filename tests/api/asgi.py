"""Requests below HTTP: the ASGI scope of an upload."""

from __future__ import annotations

from typing import Any


def upload_scope(body: bytes) -> dict[str, Any]:
    """The scope of `POST /recognize` with `body` as a WAV file."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/recognize",
        "raw_path": b"/recognize",
        "query_string": b"",
        "headers": [(b"content-type", b"audio/wav"), (b"content-length", str(len(body)).encode())],
    }
