from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.errors import MissingExtra, ModelNotFound, SettingsInvalid
from service.inference.backends import select
from service.inference.backends.compile_options import CompileChoice, CompileOptions
from service.inference.backends.onnx_backend import OnnxBackend
from service.inference.backends.select import open_backend
from service.model.store import StoredModel, find


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return find("tiny", cache=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_NVIDIA", ())


def open_tiny(tiny: StoredModel, **choices: Any) -> Any:
    return open_backend(tiny.directory, tiny.manifest, **choices)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    "choices",
    [{}, {"device": "cpu"}, {"backend": "onnx"}, {"backend": "onnx", "device": "cpu", "dtype": "fp32"}, {"threads": 1}],
)
def test_onnx_is_what_runs_on_the_cpu(tiny: StoredModel, choices: dict[str, Any]) -> None:
    backend = open_tiny(tiny, **choices)
    assert isinstance(backend, OnnxBackend)
    assert (backend.info.device, backend.info.dtype) == ("cpu", "fp32")


def test_int8_is_onnx_even_beside_a_gpu(tiny: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_NVIDIA", (Path("/"),))
    try:
        assert open_tiny(tiny, dtype="int8").info.dtype == "int8"
    except ModelNotFound:
        assert "model.int8.onnx" not in tiny.manifest.files


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"backend": "onnx", "device": "cuda"}, "CPU only, not on cuda"),
        ({"backend": "onnx", "dtype": "fp16"}, "not in fp16"),
        ({"device": "cpu", "dtype": "bf16"}, "not in bf16"),
        ({"device": "cuda", "dtype": "int8"}, "CPU only, not on cuda"),
        ({"device": "cpu", "compile_options": CompileOptions("on")}, "only the torch backend compiles"),
        ({"backend": "torch", "dtype": "int8"}, "int8 runs on the CPU"),
    ],
)
def test_choices_that_contradict_each_other(tiny: StoredModel, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        open_tiny(tiny, **choices)


@pytest.mark.parametrize("choices", [{"backend": "torch"}, {"device": "cuda"}, {"dtype": "fp16"}])
def test_torch_is_asked_for_and_not_installed(
    tiny: StoredModel, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "service.inference.backends.torch_backend", raising=False)
    with pytest.raises(MissingExtra, match=r"torch.*'\.\[torch\]'"):
        open_tiny(tiny, **choices)


def test_a_gpu_without_torch_falls_back_and_logs_a_warning(
    tiny: StoredModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(select, "_NVIDIA", (Path("/"),))
    monkeypatch.setattr(select, "find_spec", lambda _: None)
    assert open_tiny(tiny).info.backend == "onnx"
    assert "torch is not installed" in caplog.text


def test_the_default_process_on_the_cpu_never_imports_torch(tiny: StoredModel) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from service.inference.backends import select\n"
        "from service.model.store import find\n"
        "from service.model.synthetic_speech import speech_like\n"
        "from service.results import Clip\n"
        "select._NVIDIA = ()\n"
        "stored = find('tiny', cache=Path('/nonexistent'), offline=True)\n"
        "backend = select.open_backend(stored.directory, stored.manifest)\n"
        "backend.run([Clip(speech_like(0.5), 44100)])\n"
        "print(sorted({'torch', 'onnx', 'funasr', 'yaml', 'requests', 'librosa', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.torch
class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        pytest.importorskip("torch")

    def test_the_cross_check_on_the_cpu(self, tiny: StoredModel) -> None:
        info = open_tiny(tiny, backend="torch", device="cpu").info
        assert (info.backend, info.device, info.dtype) == ("torch", "cpu", "fp32")

    @pytest.mark.parametrize(("choice", "kept"), [("on", True), ("auto", False), ("off", False)])
    def test_programs_are_kept_where_there_are_any(
        self,
        tiny: StoredModel,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        choice: CompileChoice,
        kept: bool,
    ) -> None:
        for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            monkeypatch.setenv(variable, "elsewhere")  # so that monkeypatch restores it after the test
            monkeypatch.delenv(variable)
        compile_options = CompileOptions(choice, cache=tmp_path / "compiled")
        backend = open_tiny(tiny, backend="torch", device="cpu", compile_options=compile_options)
        assert bool(backend._encoder._shapes) == kept
        assert (tmp_path / "compiled").is_dir() == kept
        assert ("TRITON_CACHE_DIR" in os.environ) == kept

    @pytest.mark.parametrize("dtype", ["fp16", "bf16"])
    def test_half_precision_needs_a_gpu(self, tiny: StoredModel, dtype: str) -> None:
        with pytest.raises(SettingsInvalid, match="needs a GPU"):
            open_tiny(tiny, backend="torch", device="cpu", dtype=dtype)

    def test_a_driver_that_torch_cannot_use(
        self, tiny: StoredModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        import torch

        monkeypatch.setattr(select, "_NVIDIA", (Path("/"),))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert open_tiny(tiny).info.backend == "onnx"
        assert "torch cannot use it" in caplog.text

    def test_cuda_is_asked_for_and_not_available(self, tiny: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SettingsInvalid, match="no usable GPU"):
            open_tiny(tiny, device="cuda")
