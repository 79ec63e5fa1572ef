"""The client as a distribution of its own: what it imports, and that its generated module is current."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[2] / "client"


def test_importing_the_client_loads_only_its_dependencies_and_sets_no_environment_variable() -> None:
    program = (
        "import json, os, sys; modules, environment = set(sys.modules), dict(os.environ);"
        "import emotion2vec_client;"
        "print(json.dumps([sorted(set(sys.modules) - modules), dict(os.environ) == environment]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules, environment_unchanged = json.loads(run.stdout)
    loaded = {name.partition(".")[0] for name in modules}
    assert {"httpx", "orjson", "tenacity", "websockets"} <= loaded
    assert "service" not in loaded
    heavy = {"fastapi", "numpy", "onnxruntime", "pydantic", "pyarrow", "starlette", "torch", "tqdm", "uvicorn"}
    assert heavy & loaded == set()
    assert environment_unchanged


def test_the_blocking_client_is_generated_from_the_async_client() -> None:
    command = [sys.executable, str(CLIENT / "generate_sync_client.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
