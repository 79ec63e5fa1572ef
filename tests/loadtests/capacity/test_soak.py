from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.capacity import soak
from loadtests.capacity.load_step import LoadStep
from loadtests.capacity.soak import Check, ResourceSample, ResourceSampler, SoakResult

STEP = LoadStep("some", 60.0, answered=100, refused=0, failed=0, audio=5.0, p50=0.1, p99=0.4)


def samples(seconds: int, *, start: float = 100.0, growth: float = 0.0) -> Iterator[ResourceSample]:
    for second in range(seconds):
        yield ResourceSample(float(second), start + growth * second, 20, 9, 2)


def test_memory_is_compared_with_that_after_the_first_minute() -> None:
    rising = [*samples(60, growth=1.0), *(ResourceSample(s.second + 60, 160.0, 20, 9, 2) for s in samples(540))]
    check = soak.memory(rising, 600.0)
    assert check == Check("memory", True, "160.0 MB after 60 s, 160.0 MB at the end: +0.0%")


@pytest.mark.parametrize(("growth", "passed"), [(0.008, True), (0.012, False), (-0.1, True)])
def test_memory_may_grow_by_a_twentieth(growth: float, passed: bool) -> None:
    assert soak.memory(list(samples(600, growth=growth)), 600.0).passed is passed


def test_a_single_peak_is_no_growth() -> None:
    usual = list(samples(600))
    usual[595:598] = [ResourceSample(second, 300.0, 20, 9, 2) for second in (595.0, 596.0, 597.0)]
    assert soak.memory(usual, 600.0).passed


def test_short_runs_compare_memory_after_their_first_quarter() -> None:
    assert "after 15 s" in soak.memory(list(samples(60)), 60.0).observed
    assert not soak.memory([], 60.0).passed


@pytest.mark.parametrize(
    ("step", "passed"),
    [
        (STEP, True),
        (LoadStep("x", 60.0, 99, 1, 0, 5.0, 0.1, 0.4), True),
        (LoadStep("x", 60.0, 99, 0, 1, 5.0, 0.1, 0.4), False),
        (LoadStep("x", 60.0, 0, 0, 0, 0.0, 0.0, 0.0), False),
    ],
)
def test_no_request_may_fail(step: LoadStep, passed: bool) -> None:
    assert soak.answered(step).passed is passed


def test_resources_are_sampled_every_second() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        with ResourceSampler(os.getpid()) as taken:
            end = time.monotonic() + 60
            while len(taken) < 2 and time.monotonic() < end:
                time.sleep(0.05)
        child.kill()
    assert len(taken) >= 2
    assert taken[0].children >= 1
    assert taken[0].memory > 10
    assert taken[0].second > 0.9
    assert taken[1].second - taken[0].second > 0.9


def test_the_document_lists_checks_and_observations() -> None:
    facts = {"date": "today", "revision": "abc", "CPU": "some", "model": "tiny"}
    checks = [Check("memory", True, "flat"), Check("counts", False, "two | three")]
    found = SoakResult(facts, 0.8, STEP, STEP, [], checks)
    assert not found.passed
    text = soak.markdown(found)
    assert "- load: 80% of 1.67 requests/s, 60 s\n" in text
    assert "| memory | flat | passed |" in text
    assert "| counts | two \\| three | **failed** |" in text


@pytest.mark.slow
def test_a_minute_of_load_passes_all_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, out = tmp_path / "page.md", tmp_path / "results" / "soak.json"
    page.write_text("<!-- soak -->\n<!-- end of soak -->\n")
    status = soak.main(["--seconds", "60", "--out", str(out), "--document", str(page), "--"])
    found = json.loads(out.read_text())
    assert status == 0, found["checks"]
    assert found["passed"] is True
    assert [check["name"] for check in found["checks"]] == [
        "answers",
        "counts",
        "memory",
        "files, threads and processes",
    ]
    assert 50 <= len(found["samples"]) <= 75
    assert found["step"]["answered"] > 30
    assert page.read_text().count("passed") == 4
    assert "of that for 60 s" in capsys.readouterr().out
