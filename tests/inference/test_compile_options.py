from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.inference.backends.compile_options import CompileOptions


def test_auto_compiles_on_cuda_only() -> None:
    assert [CompileOptions("auto").wanted(device) for device in ("cpu", "cuda")] == [False, True]
    assert [CompileOptions("on").wanted(device) for device in ("cpu", "cuda")] == [True, True]
    assert [CompileOptions("off").wanted(device) for device in ("cpu", "cuda")] == [False, False]


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that monkeypatch restores it after the test
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    (tmp_path / "file").touch()
    CompileOptions(cache=tmp_path / "file" / "compiled").set_cache_variables()
    assert "every start will compile them" in caplog.text
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    CompileOptions(cache=tmp_path / "compiled").set_cache_variables()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled" / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == "elsewhere"
