from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import pytest

from service.observability import logs
from service.observability.logs import BackgroundHandler, TextFormatter

HOSTILE = 'a"b\n2026-01-01 INFO forged\x1b[31m\x9b'


@contextmanager
def logging_into_pipe() -> Iterator[tuple[logging.Logger, BinaryIO]]:
    """A logger, and a file from which its lines can be read."""
    out, into = os.pipe()
    handler = BackgroundHandler(into)
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(handler)
    with os.fdopen(out, "rb") as lines, os.fdopen(into, "wb"):
        try:
            yield logger, lines
        finally:
            handler.close()


def record(message: str = "request", **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": message, **fields})


def test_text_lines_show_the_fields_of_a_record() -> None:
    line = TextFormatter().format(record(route="/a/{b}", status=200, seconds=0.25, trace_id=None, color_message="x"))
    assert line.partition(" INFO ")[2] == 'x: request route="/a/{b}" status=200 seconds=0.25'


def test_values_from_outside_cannot_add_line_breaks_or_control_characters() -> None:
    line = TextFormatter().format(record(file_names=[HOSTILE], code=HOSTILE))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line.partition("code=")[2]) == HOSTILE


def test_messages_cannot_contain_line_breaks_or_control_characters() -> None:
    line = TextFormatter().format(record(f"a library says {HOSTILE}\n", code="x"))
    assert line.partition(" INFO ")[2] == 'x: a library says a"b\\n2026-01-01 INFO forged\\x1b[31m\\x9b code=x'
    assert TextFormatter().format(record("你好")).endswith("你好")


def test_a_traceback_follows_the_line() -> None:
    try:
        raise RuntimeError("crash")
    except RuntimeError:
        failed = record(request_id="r-1", exc_info=sys.exc_info())
    lines = TextFormatter().format(failed).splitlines()
    assert lines[0].endswith("request request_id=r-1")
    assert lines[-1] == "RuntimeError: crash"


def test_records_are_written_in_their_order() -> None:
    with logging_into_pipe() as (logger, lines):
        for index in range(3):
            logger.info("line %d", index)
        assert [lines.readline() for _ in range(3)] == [b"line 0\n", b"line 1\n", b"line 2\n"]


def test_records_beyond_the_limit_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_WAITING", 5)
    with logging_into_pipe() as (logger, lines):
        logger.info("x" * 2**20)  # more than a pipe holds, so that the thread blocks
        while not select.select([lines], [], [], 0)[0]:
            time.sleep(0.001)
        for index in range(9):
            logger.info("line %d", index)
        assert len(lines.readline()) == 2**20 + 1
        following = [lines.readline().decode().rstrip() for _ in range(6)]
    lost = "4 log records were dropped: standard error is not read fast enough"
    assert [line for line in following if line != lost] == [f"line {index}" for index in range(5)]
    assert lost in following


def test_a_record_that_cannot_be_formatted_does_not_end_the_logging(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_into_pipe() as (logger, lines):
        logger.info("%d", "no number")
        logger.info("lone \ud800 surrogate")
        assert lines.readline() == b"lone \\ud800 surrogate\n"
    assert "--- Logging error ---" in capsys.readouterr().err


PROGRAM = """
import logging, sys
import service.observability.logs
from service.observability.logs import configure_logging
from service.settings.settings import Settings
service.observability.logs._CLOSE_SECONDS = float(sys.argv[4])
configure_logging(Settings(log_format=sys.argv[1]))
for index in range(int(sys.argv[2])):
    logging.getLogger("x").info("line %d", index, extra={"code": sys.argv[3]})
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_end_of_the_process_waits_until_all_lines_are_written(log_format: str) -> None:
    command = [sys.executable, "-c", PROGRAM, log_format, "2000", "é\n", "30"]
    run = subprocess.run(command, capture_output=True, check=True, timeout=60)
    lines = run.stderr.decode().splitlines()
    assert len(lines) == 2000
    if log_format == "json":
        last = json.loads(lines[-1])
        assert abs(datetime.fromisoformat(last.pop("time")) - datetime.now(UTC)) < timedelta(minutes=1)
        assert last == {"level": "INFO", "logger": "x", "message": "line 1999", "code": "é\n"}
    else:
        assert lines[-1].endswith(r'INFO x: line 1999 code="\u00e9\n"')


def test_a_pipe_that_is_not_read_blocks_neither_the_program_nor_its_end() -> None:
    command = [sys.executable, "-c", PROGRAM, "text", "5000", "x" * 100, "1"]  # more than a pipe holds
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
