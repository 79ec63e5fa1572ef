"""Which modules each command imports: the time to the first answer is mostly that of imports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.data import EXAMPLES
from tests.client.scripted_server import scripted
from tests.folders.served import ANSWER, MODELS

SERVER = {
    *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "websockets", "anyio", "httpx", "python_multipart"),
    *(
        "prometheus_client",
        "opentelemetry",
        "throttled",
        "pythonjsonlogger",
        "service.api",
        "service.observability.logs",
    ),
}
FOLDER_RUN = {"tqdm", "pyarrow", "csv", "emotion2vec_client", "service.folders.recognize_files"}
SETTINGS = {"pydantic", "pydantic_core", "yaml", "service.settings.validation"}
TORCH = {"torch", "torchaudio", "funasr", "onnx", "librosa", "scipy", "safetensors", "sympy"}
SELDOM = {"av", "importlib.metadata", "email", "service.recognition.long_file", "service.preprocess.segmentation"}
MODEL = {"onnxruntime", "soundfile", "asyncio"}

HAPPY = str(EXAMPLES / "happy.wav")
CPU = ("--device", "cpu")


def names(log: str) -> set[str]:
    """The modules in the log of `-X importtime`, and the packages that contain them."""
    modules = re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", log, re.MULTILINE)
    return {name.rsplit(".", dots)[0] for name in modules for dots in range(name.count(".") + 1)}


def imported(*arguments: str, **variables: str) -> set[str]:
    """The modules that a command imports in its own process."""
    command = [sys.executable, "-X", "importtime", "-m", "service.cli", *arguments]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **variables}
    )
    return names(run.stderr)


def test_the_answer_for_a_file_needs_nothing_of_servers_folder_runs_and_validation() -> None:
    flags = (*CPU, "--model", "tiny", "--backend", "onnx", "--dtype", "fp32", "--threads", "2", "--offline")
    modules = imported("recognize", "--json", *flags, HAPPY, SER_COMPILE="off")
    assert modules & (SERVER | FOLDER_RUN | SETTINGS | TORCH | SELDOM) == set()
    assert modules >= MODEL


def test_segments_need_nothing_of_servers_either() -> None:
    modules = imported("recognize", *CPU, "--option", "granularity=segment", HAPPY)
    assert modules & (SERVER | FOLDER_RUN | SETTINGS | TORCH) == set()


def test_a_file_of_settings_is_validated(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("threads: 1\n", encoding="utf-8")
    modules = imported("recognize", *CPU, "--config", str(config), HAPPY)
    assert modules >= SETTINGS
    assert modules & (SERVER | TORCH) == set()


def test_recognition_by_a_server_needs_no_model() -> None:
    with scripted(MODELS, ANSWER) as server:
        assert imported("recognize", "--url", server.url, HAPPY) & (TORCH | {"onnxruntime", "fastapi"}) == set()


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["recognize", "--help"], ["serve", "--help"]])
def test_help_needs_neither_model_nor_arrays(arguments: list[str]) -> None:
    assert imported(*arguments) & (SERVER | FOLDER_RUN | SETTINGS | TORCH | SELDOM | MODEL | {"numpy"}) == set()


def test_the_list_of_models_opens_none(tmp_path: Path) -> None:
    modules = imported("models", "list", "--cache-dir", str(tmp_path))
    assert modules & (SERVER | FOLDER_RUN | SETTINGS | TORCH | SELDOM | MODEL) == set()


def test_a_server_on_the_cpu_never_imports_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "service.cli", "serve", *CPU, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("Ready")
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    modules = names(log)
    assert modules & TORCH == set()
    assert modules >= {"fastapi", "uvicorn", "onnxruntime"}
