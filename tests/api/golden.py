"""The OpenAPI document, as a file that shows every change of the interface in review.

Renew it with `python -m tests.api.golden`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from service.api.app import create_app
from service.observability.metrics import Metrics
from service.settings.settings import Settings
from tests.api.double import RecognizerDouble

PATH = Path(__file__).with_name("openapi.json")


def current() -> dict[str, Any]:
    """The document of the application with default settings; its version is left out, which changes for itself."""
    app = create_app(RecognizerDouble(), Settings(), Metrics(CollectorRegistry()))
    document: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    del document["info"]["version"]
    return document


if __name__ == "__main__":
    PATH.write_text(json.dumps(current(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
