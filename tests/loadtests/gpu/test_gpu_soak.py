from __future__ import annotations

from dataclasses import replace

from loadtests.capacity.load_step import LoadStep
from loadtests.common.metrics_scrape import MetricsScrape
from loadtests.gpu.gpu_soak import GpuSoakResult, memory

MEMORY = {"GPU, allocated": 1e9, "GPU, reserved": 2e9, "resident": 1e9}
STEP = LoadStep("some", 1.0, answered=10, refused=1, failed=0, audio=5.0, p50=0.1, p99=0.2)


def result(late: dict[str, float] | None = None, step: LoadStep = STEP) -> GpuSoakResult:
    return GpuSoakResult(step, MEMORY, {**MEMORY, **(late or {})})


def test_what_counts_as_a_problem() -> None:
    assert result().problems() == []
    assert result({"GPU, reserved": 2.2e9, "resident": 1.1e9}).problems() == []
    assert result(step=replace(STEP, answered=0)).problems() == ["0 requests were answered and 0 failed"]
    assert result(step=replace(STEP, failed=1)).problems() == ["10 requests were answered and 1 failed"]
    assert result({"GPU, allocated": 1e9 + 1}).problems() == ["memory that the GPU has allocated grows"]
    assert result({"resident": 1.3e9}).problems() == ["memory grows: resident from 1000 to 1300 MB"]


def test_the_summary_has_plain_values() -> None:
    found = result(step=replace(STEP, failed=1)).summary()
    assert (found["answered"], found["p99"], found["early"]) == (10, 0.2, MEMORY)
    assert found["problems"] == ["10 requests were answered and 1 failed"]


def test_memory_is_read_from_the_metrics() -> None:
    gpu = 'ser_gpu_memory_bytes{kind="allocated"} 5.0\nser_gpu_memory_bytes{kind="peak"} 6.0\n'
    metrics = MetricsScrape.parse(f"{gpu}process_resident_memory_bytes 7e6\n")
    assert memory(metrics) == {"GPU, allocated": 5.0, "resident": 7e6}
