"""The table, from a report that pytest has written; no fault test is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import report

ROOT = Path(__file__).resolve().parents[2]
TESTS = '''
import pytest

pytest_plugins = ["tests.faults.conftest"]

def test_good(observe):
    """The disk is full"""
    observe("3 | 4 refused")

@pytest.mark.parametrize("size", [5])
def test_bad(observe, size):
    """The lamp is broken"""
    assert size == 6, "it is dark"
    observe("never")

def test_impossible(observe):
    """The moon falls down"""
    pytest.skip("needs a moon")

def test_silent():
    """This is in no table"""
'''


@pytest.mark.slow
def test_rows_are_what_the_tests_have_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_example.py").write_text(TESTS)
    results, document = tmp_path / "results.xml", tmp_path / "page.md"
    document.write_text("before\n<!-- faults -->\nold\n<!-- end of faults -->\nafter\n")
    command = [sys.executable, "-m", "pytest", str(tmp_path), "-q", "-p", "no:cacheprovider", f"--junitxml={results}"]
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert report.main(["--results", str(results), "--document", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- faults -->\n- date: ")
    assert text.endswith("|\n<!-- end of faults -->\nafter\n")
    rows = [line for line in text.splitlines() if line.startswith("| The")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| The disk is full",
        "| The lamp is broken",
        "| The moon falls down",
    ]
    assert "| 3 \\| 4 refused | passed |" in rows[0]
    assert rows[0].endswith("test_example.py::test_good` |")
    assert "it is dark" in rows[1]
    assert "**failure**" in rows[1]
    assert "test_bad[5]`" in rows[1]
    assert "| needs a moon | **skipped** |" in rows[2]
    assert rows[0] in capsys.readouterr().out


def test_a_report_without_fault_tests_changes_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text("<testsuites/>")
    with pytest.raises(SystemExit, match="no fault test"):
        report.main(["--results", str(results), "--document", str(tmp_path / "none.md")])
