"""Log lines on standard error: readable text, or one JSON object each."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from queue import SimpleQueue

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter

from service.settings.settings import Settings

logger = logging.getLogger(__name__)

_NO_FIELDS = frozenset({*RESERVED_ATTRS, "taskName", "color_message"})
"""Attributes that every record has and that are not shown as fields; `color_message` is set by uvicorn."""

_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_MAX_WAITING = 10_000
"""Records that may wait to be written; more are dropped."""

_CLOSE_SECONDS = 1.0
"""Seconds for which the end of the process waits for records that are not written yet."""


def configure_logging(settings: Settings) -> None:
    """Log to standard error, in the format and from the level in `settings`."""
    if sys.__stderr__ is None:  # the parent process has closed it
        return
    handler = BackgroundHandler(sys.__stderr__.fileno())
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


class JsonFormatter(OrjsonFormatter):
    """One JSON object per line: time (RFC 3339, UTC), level, logger, message, and the fields of the record."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            reserved_attrs=[*_NO_FIELDS],
        )


class TextFormatter(logging.Formatter):
    """A readable line; the fields that a record was given as `extra` follow the message as `name=value`.

    Values from outside cannot contain line breaks or control characters, because they are shown as JSON, and those of
    messages, which libraries may take from requests, are escaped.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        """The line without the traceback."""
        fields = ((name, value) for name, value in vars(record).items() if name not in _NO_FIELDS and value is not None)
        message = _CONTROL.sub(_escaped, super().formatMessage(record).rstrip("\n"))  # some of uvicorn's end a line
        return " ".join([message, *(f"{name}={_shown(value)}" for name, value in fields)])


class BackgroundHandler(logging.Handler):
    """Formats and writes records in its own thread, so that neither blocks the caller, such as the event loop.

    If the output is not read, a limited number of records waits; more are dropped, and a later line counts them.

    The standard library's QueueHandler and QueueListener do not fit: they format records in the calling thread, report
    a full queue by writing to standard error, and `stop` waits for the thread without a time limit.

    Args:
        descriptor: of the file to write to. Not a stream, whose lock could block the end of the process.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0
        # A daemon, because a write that never returns must not keep the process alive.
        self._writer = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` to the thread without a copy, since no code changes it afterwards."""
        if self._waiting.qsize() < _MAX_WAITING:
            self._waiting.put(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Wait briefly until the last records are written; `logging` calls this at the end of the process."""
        self._waiting.put(None)
        self._writer.join(_CLOSE_SECONDS)
        super().close()

    def _write_all(self) -> None:
        reported = 0
        while (record := self._waiting.get()) is not None:
            self._write(record)
            if self._dropped > reported and self._waiting.qsize() < _MAX_WAITING / 2:
                lost, reported = self._dropped - reported, self._dropped
                text = "%d log records were dropped: standard error is not read fast enough"
                self._write(logger.makeRecord(__name__, logging.WARNING, __file__, 0, text, (lost,), None))

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            while line:
                line = line[os.write(self._descriptor, line) :]
        except Exception:  # a bad record or a closed pipe must not end all logging
            self.handleError(record)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _shown(value: object) -> str:
    if isinstance(value, int | float) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
        return str(value)
    return json.dumps(value, default=str)
