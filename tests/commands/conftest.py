from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.observability.logs import BackgroundHandler


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands set up the logging of their process, which is that of all tests here."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if isinstance(handler, BackgroundHandler):
            root.removeHandler(handler)
            handler.close()
