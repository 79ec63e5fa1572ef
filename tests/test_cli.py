"""The command `emotion2vec-service` itself."""

from __future__ import annotations

import subprocess
import sys


def test_help_lists_all_commands_and_loads_no_heavy_modules() -> None:
    program = (
        "import sys; from service.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'fastapi', 'httpx', 'numpy', 'onnxruntime', 'torch', 'tqdm', 'uvicorn'} & set(sys.modules)\n"
        "print(sorted(heavy)); sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert all(f"\n    {name}" in run.stdout for name in ("serve", "recognize", "stream", "models"))
    assert run.stdout.splitlines()[-1] == "[]"
