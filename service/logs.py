"""Log lines on standard error: readable text, or one JSON object each."""

from __future__ import annotations

import logging

from pythonjsonlogger.orjson import OrjsonFormatter

from service.settings import Settings

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logging(settings: Settings) -> None:
    """Send everything from the level in `settings` on to standard error, in its format."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        fields = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(OrjsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=fields))
    else:
        handler.setFormatter(logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
