"""A source without a model. As a program it recognises a directory, so that tests can kill it:

python -m tests.folders.double DIRECTORY OUT SECONDS_PER_FILE
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from emotion2vec_client.types import ModelSummary

from service.folders.finding import find_files
from service.folders.recognize_files import recognize_files
from service.recognition.options import Options

MODEL: ModelSummary = {
    "id": "m",
    "revision": "r1",
    "backend": "onnx",
    "device": "cpu",
    "dtype": "fp32",
    "demonstration": False,
}


class SourceDouble:
    """Implements `service.folders.source.Source`: the label of a file is its text.

    Attributes:
        recognized: the names of files, in the order of the calls.
        failing: names of files that get a problem.
    """

    concurrency = 3

    def __init__(self, seconds: float = 0.0) -> None:
        self.model = MODEL
        self.recognized: list[str] = []
        self.failing: set[str] = set()
        self._seconds = seconds
        self._lock = threading.Lock()

    def __enter__(self) -> SourceDouble:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def recognize(self, path: Path) -> Mapping[str, object]:
        with self._lock:
            self.recognized.append(path.name)
        time.sleep(self._seconds)
        if path.name in self.failing:
            return {"problem": {"code": "audio_empty", "title": "Empty", "detail": "Nothing is in it."}}
        return {"model": self.model, "audio": {"duration": 1.0}, "label": path.read_text(), "score": 0.5}


if __name__ == "__main__":
    recognize_files(
        find_files([Path(sys.argv[1])]),
        SourceDouble(float(sys.argv[3])),
        Options(),
        Path(sys.argv[2]),
        threads=3,
        retry_failed=False,
    )
