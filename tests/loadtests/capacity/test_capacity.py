from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.capacity import capacity
from loadtests.capacity.capacity import CapacityResult
from loadtests.capacity.load_step import LoadStep

MARKED = "<!-- capacity -->\nold\n<!-- end of capacity -->\n"
STEP = LoadStep("2 callers", 10.0, answered=40, refused=0, failed=0, audio=12.0, p50=0.1, p99=0.5)


def result(closed: Sequence[LoadStep], opened: Sequence[LoadStep]) -> CapacityResult:
    facts = {"date": "today", "revision": "abc", "CPU": "some, 2 cores", "model": "tiny"}
    return CapacityResult(facts, 2, 1.0, list(closed), list(opened), counts_agree=True)


def test_the_best_step_and_the_sustainable_one() -> None:
    more = replace(STEP, name="4 callers", audio=15.0)
    fine = replace(STEP, name="80%", audio=11.0)
    late = replace(STEP, name="90%", audio=13.0, p99=1.2)
    refused = replace(STEP, name="100%", audio=14.0, refused=5)
    failed = replace(STEP, name="120%", audio=14.5, failed=1)
    found = result([STEP, more], [fine, late, refused, failed])
    assert found.best is more
    assert found.sustainable is fine
    text = capacity.markdown(found)
    assert "- CPU: some, 2 cores\n" in text
    assert "| 4 callers | 15 | 4 | 0.1 s | 0.5 s | 0 | 0 |" in text
    assert "**Capacity: 15 audio seconds per second** (4 callers), 7.5 per core with 2; 4 requests of 3.8 s" in text
    assert "Sustainable with P99 within 1 s: 11 audio seconds per second." in text
    assert "The service has counted as the callers did." in text


def test_where_nothing_is_sustainable() -> None:
    found = result([STEP], [replace(STEP, p99=9.0), replace(STEP, answered=0)])
    found.counts_agree = False
    assert found.sustainable is None
    text = capacity.markdown(found)
    assert "none of the rates tried" in text
    assert "NOT as the callers did" in text


def test_flags_and_a_url_exclude_each_other() -> None:
    with pytest.raises(SystemExit, match="flags need a server"):
        capacity.main(["--url", "http://127.0.0.1:1", "--", "--model", "tiny"])


@pytest.mark.slow
def test_a_server_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "some" / "capacity.json"
    page.write_text(MARKED)
    short = ["--seconds", "3", "--callers", "1", "4", "--shares", "0.5"]
    assert capacity.main([*short, "--document", str(page), "--json", str(figures), "--", "--threads", "1"]) == 0
    found = json.loads(figures.read_text())
    assert [step["name"] for step in found["closed"]] == ["1 caller", "4 callers"]
    assert found["open"][0]["name"].endswith("(50%)")
    assert found["counts_agree"] is True
    assert all(step["answered"] > 0 and step["failed"] == 0 for step in (*found["closed"], *found["open"]))
    assert found["facts"]["model"].startswith("tiny (")
    text = page.read_text()
    assert "**Capacity: " in text
    assert "The service has counted as the callers did." in text
    assert "4 callers" in capsys.readouterr().out


@pytest.mark.slow
def test_refusals_are_not_failures(tmp_path: Path) -> None:
    figures = tmp_path / "capacity.json"
    short = ["--seconds", "3", "--callers", "8", "--shares", "2", "--json", str(figures)]
    assert capacity.main([*short, "--", "--max-in-flight", "2"]) == 0
    found = json.loads(figures.read_text())
    assert found["counts_agree"] is True
    assert found["open"][0]["refused"] > 0
    assert found["open"][0]["failed"] == 0
