"""A plain FastAPI route around FunASR, the baseline of the service.

    python -m loadtests.bench.funasr_app HUB_DIRECTORY DEVICE THREADS PORT

The route is a coroutine that calls the model directly, like FunASR's own HTTP server: the model is not thread-safe
(FunASR issue 2475).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import soundfile
import uvicorn
from fastapi import FastAPI, UploadFile

from loadtests.common.funasr import load_funasr


def make_app(hub: Path, device: str, threads: int) -> FastAPI:
    """Load the model, then make the application."""
    model = load_funasr(hub, device, threads)
    app = FastAPI()

    @app.post("/recognize")
    async def recognize(file: UploadFile) -> dict[str, list[str] | list[float]]:
        samples, _ = soundfile.read(io.BytesIO(await file.read()), dtype="float32")
        answer = model.generate(samples, granularity="utterance", extract_embedding=False)[0]
        return {"labels": answer["labels"], "scores": answer["scores"]}

    return app


if __name__ == "__main__":
    served = make_app(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    uvicorn.run(served, port=int(sys.argv[4]), log_level="error", access_log=False)
