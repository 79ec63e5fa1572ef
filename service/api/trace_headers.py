"""W3C trace headers, checked before a library reads them: OpenTelemetry logs the text of those that are not valid."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import Scope

_MAX_TRACESTATE = 512
"""The length that every implementation must accept; together with its grammar, it bounds the time to parse it."""

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}(-[0-9a-f]{32})(-[0-9a-f]{16})(-[0-9a-f]{2})(-[\x21-\x7e]{1,400})?")
_KEY = rb"[a-z0-9][a-z0-9_*/@-]{0,255}"
_VALUE = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACESTATE = re.compile(rb"[ \t]*(%b=%b[ \t]*)?(,[ \t]*(%b=%b[ \t]*)?)*" % (_KEY, _VALUE, _KEY, _VALUE))


def drop_invalid_trace_headers(scope: Scope) -> None:
    """Remove `traceparent` and `tracestate` if they are not valid, and `baggage`, which nothing here needs."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    states = [value for name, value in headers if name == b"tracestate"]
    joined = b",".join(states)
    dropped = {b"baggage"}
    if len(joined) > _MAX_TRACESTATE or not _TRACESTATE.fullmatch(joined):
        dropped.add(b"tracestate")
    if any(not _TRACEPARENT.fullmatch(value) for name, value in headers if name == b"traceparent"):
        dropped.add(b"traceparent")
    scope["headers"] = [(name, value) for name, value in headers if name not in dropped]
