from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.observability.logs import BackgroundHandler


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo the logging configuration of commands, which run in the process of the tests."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if isinstance(handler, BackgroundHandler):
            root.removeHandler(handler)
            handler.close()
