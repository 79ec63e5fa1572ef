from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from loadtests.bench.bench_models import BenchModel  # noqa: E402
from loadtests.gpu import gpu_measurements, gpu_report  # noqa: E402
from loadtests.gpu.gpu_report import GpuReport  # noqa: E402
from service.model.manifest import WEIGHTS, Manifest  # noqa: E402
from service.model.store import find  # noqa: E402


def test_without_a_gpu_the_command_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_report, "_gpu", lambda: None)
    assert gpu_report.main(["--out", str(tmp_path / "out")]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sections that take no time; the second fails."""

    def fail(report: GpuReport) -> object:
        raise ValueError("no such thing")

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    monkeypatch.setattr(
        gpu_report,
        "SECTIONS",
        {"speed": lambda report: [{"seconds": 1.0, "clips": 4}], "bench": fail, "soak": lambda report: {"answered": 3}},
    )


@pytest.mark.usefixtures("sections")
def test_the_other_sections_run_after_one_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "gpu_report.json").read_text())
    assert found["problems"] == ["bench: ValueError: no such thing"]
    assert found["speed"] == [{"seconds": 1.0, "clips": 4}]
    text = (tmp_path / "gpu_report.md").read_text()
    assert "# Trial of the report" in text
    assert "- **bench: ValueError: no such thing**" in text
    assert "## speed\n\n| seconds | clips |\n| --- | --- |\n| 1 | 4 |" in text
    assert "- answered: 3" in text
    assert capsys.readouterr().out.endswith(text + "\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("sections")
def test_single_sections_can_be_chosen(tmp_path: Path) -> None:
    assert gpu_report.main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--only", "soak"]) == 0
    assert "No section has found a problem" in (tmp_path / "gpu_report.md").read_text()


def test_a_scaled_head_is_the_only_difference(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    stored = find("tiny", cache=tmp_path, offline=True)
    model = BenchModel(tmp_path / "hub", stored.directory)
    scaled = gpu_measurements.with_scaled_head(model, tmp_path)
    assert gpu_measurements.with_scaled_head(model, tmp_path) == scaled
    manifest = Manifest.read(scaled.prepared)
    assert manifest.config == stored.manifest.config
    before, after = load_file(stored.directory / WEIGHTS), load_file(scaled.prepared / WEIGHTS)
    changed = [name for name, values in before.items() if not np.array_equal(values, after[name])]
    assert sorted(changed) == ["proj.bias", "proj.weight"]
    assert gpu_measurements.open_torch(scaled.prepared, "cpu", "auto", "off").info.revision == manifest.revision


@pytest.mark.slow
def test_the_whole_command_runs_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("funasr")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    arguments = ["--device", "cpu", "--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert gpu_report.main(arguments) == 0
    found = json.loads((tmp_path / "out" / "gpu_report.json").read_text())
    assert set(gpu_report.SECTIONS) < set(found)
    assert found["tests"][0]["failures"] == 0
    assert {row["clips"] for row in found["agreement"]} == {"one by one", "together"}
    assert all(row["same label"] == 1 for row in found["agreement"])
    assert [row["start"] for row in found["starts"]] == ["first", "second"]
    assert found["soak"]["answered"] == 30
    assert "resampl" in found["bench"]
