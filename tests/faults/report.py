"""Runs the fault tests and writes their observations into docs/reliability.md.

    python -m tests.faults.report [--results faults.xml]

The rows come from pytest's report (JUnit XML), with the observations that tests have recorded. With `--results`, the
report of an earlier `pytest tests/faults --junitxml=faults.xml` is used instead of a new run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from loadtests.common import documents, machine

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
HEAD = ("fault", "observed", "", "command: `.venv/bin/python -m pytest …`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests and write the table; the exit status is that of pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description="Run the fault tests.")
    parser.add_argument("--results", type=Path, help="use this report instead of a new run")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the document with the table")
    options = parser.parse_args(arguments)
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as scratch:
        results = options.results or Path(scratch) / "faults.xml"
        status = 0
        if options.results is None:
            command = [sys.executable, "-m", "pytest", "tests/faults", "-q", f"--junitxml={results}"]
            status = subprocess.run(command, cwd=ROOT, check=False).returncode
        found = list(rows(results))
    if not found:
        raise SystemExit(f"{results} contains no fault test")
    text = documents.fact_list(facts, "date", "revision", "CPU", "memory") + "\n" + documents.table(HEAD, found)
    documents.insert(options.document, "faults", text)
    print(text)
    return status


def rows(results: Path) -> Iterator[tuple[str, str, str, str]]:
    """Fault, observation, verdict, and the test that reproduces it."""
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        recorded = {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
        if "fault" not in recorded:
            continue
        verdict, seen = "passed", recorded.get("observed", "")
        for name in ("failure", "error", "skipped"):
            for end in case.iter(name):
                verdict, seen = f"**{name}**", end.attrib.get("message", "").partition("\n")[0]
        path = case.attrib["classname"].replace(".", "/") + ".py"
        yield recorded["fault"], seen, verdict, f"`{path}::{case.attrib['name']}`"


if __name__ == "__main__":
    sys.exit(main())
