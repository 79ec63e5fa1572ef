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
"""What records have by themselves, and not as fields of a line; the last is uvicorn's, for terminals."""

THREAD_NAME = "log-writer"

_PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)
_MOST_WAITING = 10_000
_LAST_SECONDS = 1.0


def configure_logging(settings: Settings) -> None:
    """Send everything from the level in `settings` on to standard error, in its format."""
    if sys.__stderr__ is None:  # closed by whoever started the process
        return
    handler = BackgroundHandler(sys.__stderr__.fileno())
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


class JsonFormatter(OrjsonFormatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the fields of the record."""

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
    """A readable line, in which the fields that a record has been given as `extra` follow the message as `name=value`.

    Values that come from outside cannot break the line, nor reach a terminal as control characters.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        """The line without its traceback."""
        fields = ((name, value) for name, value in vars(record).items() if name not in _NO_FIELDS and value is not None)
        return " ".join([super().formatMessage(record), *(f"{name}={_shown(value)}" for name, value in fields)])


class BackgroundHandler(logging.Handler):
    """Formats and writes records in a thread of its own.

    Neither that work nor a reader who has stopped reading may hold up the event loop. What waits for such a reader is
    bounded: records past that are dropped, and counted in a line that follows.

    Args:
        descriptor: of the file to write to. Not a stream: their locks would hold up the end of the process as well.
        most_waiting: how many records may wait to be written.
    """

    def __init__(self, descriptor: int, most_waiting: int = _MOST_WAITING) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most_waiting = most_waiting
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self._dropped = 0
        # A daemon, because a write that never returns must not keep the process from ending.
        self._writer = threading.Thread(target=self._write_all, name=THREAD_NAME, daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Leave `record` to the thread, as it is: in this process nobody changes it any more."""
        if self._waiting.qsize() < self._most_waiting:
            self._waiting.put(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Give the thread a moment to write what waits; `logging` calls this at the end of the process."""
        self._waiting.put(None)
        self._writer.join(_LAST_SECONDS)
        super().close()

    def _write_all(self) -> None:
        told = 0
        while (record := self._waiting.get()) is not None:
            self._write(record)
            if self._dropped > told and self._waiting.qsize() < self._most_waiting / 2:
                lost, told = self._dropped - told, self._dropped
                text = "%d log records were dropped: standard error is not read fast enough"
                self._write(logger.makeRecord(__name__, logging.WARNING, __file__, 0, text, (lost,), None))

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            while line:
                line = line[os.write(self._descriptor, line) :]
        except Exception:  # one bad record, or a reader that is gone, must not end all logging
            self.handleError(record)


def _shown(value: object) -> str:
    if isinstance(value, int | float) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
        return str(value)
    return json.dumps(value, default=str)
