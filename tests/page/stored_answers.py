"""The stored answers of the page's examples, computed with the embedded model.

Update them with `python -m tests.page.stored_answers`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from service.data import EXAMPLES
from tests.api.server.test_server import serving

PAGE = Path(__file__).resolve().parents[2] / "service" / "page"
PATH = PAGE / "examples.json"
OPTIONS = {"granularity": "frame", "window": "0.5", "hop": "0.1", "embedding": "utterance"}
"""The default options of the page."""

MODEL_FLAGS = ("--model", "tiny", "--device", "cpu", "--dtype", "fp32")
_DIGITS = 6


def stored() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return document


def computed(url: str) -> dict[str, Any]:
    """The answers, computed by the service at `url`."""
    answers = {}
    for path in sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".flac", ".wav")):
        response = httpx.post(f"{url}/recognize", files={"file": path.read_bytes()}, data=OPTIONS, timeout=60)
        answers[path.name] = {**response.raise_for_status().json(), "id": "stored"}
    return {"options": OPTIONS, "answers": answers}


def rounded(value: Any) -> Any:
    """`value` with floats rounded to the digits that agree on all machines."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    with serving(*MODEL_FLAGS) as (_, url):
        document = rounded(computed(url))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in document["answers"].items())
    PATH.write_text(f'{{"options": {json.dumps(OPTIONS)},\n"answers": {{\n{lines}\n}}}}\n', encoding="utf-8")
