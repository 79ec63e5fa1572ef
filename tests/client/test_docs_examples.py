"""The Python examples in docs/client.md and the client's README run."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.api.double import RecognizerDouble
from tests.api.sockets import listening
from tests.audio_samples import encode, speech
from tests.client.test_with_service import app_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


async def test_every_program_of_the_page_runs(tmp_path: Path) -> None:
    for name in ("call.wav", "other.wav"):
        (tmp_path / name).write_bytes(encode("wav-s16", speech(8000, 2), 8000))
    assert len(PROGRAMS) == 3
    async with listening(app_of(RecognizerDouble())) as port:
        for program in PROGRAMS:
            assert "http://127.0.0.1:8000" in program
            here = program.replace(":8000", f":{port}")
            run = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", here],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert run.returncode == 0, run.stderr
            assert run.stdout
