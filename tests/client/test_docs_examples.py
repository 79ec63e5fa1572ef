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

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "docs" / "client.md", ROOT / "client" / "README.md")


async def test_every_example_runs(tmp_path: Path) -> None:
    for name in ("call.wav", "other.wav"):
        (tmp_path / name).write_bytes(encode("wav-s16", speech(8000, 2), 8000))
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(programs) == 6
    async with listening(app_of(RecognizerDouble())) as port:
        for program in programs:
            assert "http://127.0.0.1:8000" in program
            local = program.replace(":8000", f":{port}")
            run = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", local],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert run.returncode == 0, run.stderr
            assert run.stdout
