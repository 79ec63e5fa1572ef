"""Audio files, and the replies of a scripted server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.api.sounds import wav
from tests.client.scripted_server import Reply
from tests.folders.double import MODEL

MODELS = Reply(body=json.dumps({"models": [{**MODEL, "labels": [], "embedding_size": 8}]}).encode())
ANSWER = Reply(body=json.dumps({"id": "1", "model": MODEL, "audio": {"duration": 1.0}, "label": "sad"}).encode())


def files(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"{index}.wav" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(wav(0.2, seed=index))
    return paths


def code_of(outcome: Any) -> str:
    return str(outcome["problem"]["code"])
