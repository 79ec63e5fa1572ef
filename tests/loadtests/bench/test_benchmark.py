"""The whole benchmark, in its quick mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bench import bench_report, goals
from loadtests.bench.tables import Report

pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "loadtests.bench", "--quick"]
    environment = {**os.environ, "SER_MODEL": "/nowhere"}  # must not reach the processes that are measured
    subprocess.run(
        [*command, "--out", str(scratch / "results"), "--cache", str(scratch)],
        check=True,
        timeout=900,
        cwd=ROOT,
        env=environment,
    )
    return scratch / "results"


@pytest.fixture(scope="module")
def found(results: Path) -> Report:
    return bench_report.load(results / "bench.json")


def test_every_implementation_is_measured_in_every_row(found: Report) -> None:
    main = found.tables[0]
    assert list(main.columns) == ["funasr", "fp32", "int8"]
    for row in main.rows:
        assert row.values.keys() == main.columns.keys(), row.key
        assert all(min(values) > 0 for values in row.values.values()), row.key


def test_goals_find_their_rows(found: Report) -> None:
    unmeasured = {goal.name.partition(": ")[2] for goal in goals.evaluate(found) if goal.found is None}
    # The quick mode does not measure these lengths and numbers of callers, nor the large model.
    assert unmeasured == {
        *(f"utterance of {seconds} s, times as fast" for seconds in (5, 30, 60)),
        "P99 of 20 callers, in times of that of 5",
        "peak memory for five minutes, MB",
        "largest difference of a score",
        "kappa of the labels",
        "correlation of the frame scores",
    }


def test_answers_are_those_of_funasr(found: Report) -> None:
    values = {key: row.values for key in ("difference", "same", "frames") if (row := found.row(f"tiny-{key}"))}
    assert values["difference"]["fp32"][0] < 1e-4
    assert values["same"]["fp32"] == [1.0]
    assert values["frames"]["fp32"][0] > 0.999
    assert values["frames"]["int8"][0] > 0.9


def test_starting_takes_a_fraction_of_the_time_and_memory(found: Report) -> None:
    for key in ("cold", "memory-server", "memory-process"):
        row = found.row(key)
        assert row is not None
        ratio = row.ratio("fp32", "funasr")
        assert ratio is not None
        assert ratio.value > 2, key


def test_documents_are_written(results: Path) -> None:
    assert "| utterance of 1 s |" in (results / "bench.md").read_text(encoding="utf-8")
