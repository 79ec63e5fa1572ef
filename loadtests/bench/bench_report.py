"""A report as JSON and as Markdown.

    python -m loadtests.bench.bench_report bench.json README.md docs/performance.md

writes the tables of a saved report into documents, between lines such as `<!-- bench: header main -->` and
`<!-- end of bench -->`, which list the parts wanted: `header`, `goals`, or keys of tables.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.bench.tables import Goal, Report, Row, Spread, Table
from loadtests.common import documents

_ADAPTER = TypeAdapter(Report)
_PART = re.compile(r"(<!-- bench: ([a-z0-9 -]+?) -->\n).*?(<!-- end of bench -->)", re.DOTALL)


def save(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.write_bytes(_ADAPTER.dump_json(report, indent=1) + b"\n")


def load(path: Path) -> Report:
    """Read a report from JSON."""
    return _ADAPTER.validate_json(path.read_bytes())


def markdown(report: Report) -> str:
    """The whole report."""
    names = ["header", *(table.key for table in report.tables), *(["goals"] if report.goals else [])]
    return "# Benchmark against FunASR\n\n" + "\n".join(part(report, name) for name in names)


def insert(report: Report, document: str) -> str:
    """Replace the text between the marks of a document by the parts that they list.

    Raises:
        ValueError: if there are no marks, or they list a part that the report does not have.
    """

    def replaced(match: re.Match[str]) -> str:
        return match[1] + "\n".join(part(report, name) for name in match[2].split()) + match[3]

    text, count = _PART.subn(replaced, document)
    if not count:
        raise ValueError("the document has no line <!-- bench: ... -->")
    return text


def part(report: Report, name: str) -> str:
    """One part of a report as Markdown."""
    if name == "header":
        return "".join(f"- {key}: {value}\n" for key, value in report.header.items())
    if name == "goals":
        return documents.table(("goal", "needed", "found", ""), _goals(report.goals))
    for table in report.tables:
        if table.key == name:
            head, *rows = _table(table)
            return f"{table.title}\n\n{documents.table(head, rows)}"
    raise ValueError(f"the report has no part {name!r}")


def _table(table: Table) -> Iterator[list[str]]:
    columns = [(column, table.baselines.get(column)) for column in table.columns]
    yield ["", *(cell for column, base in columns for cell in [table.columns[column], *(["ratio"] if base else [])])]
    for row in table.rows:
        cells = [row.name]
        for column, baseline in columns:
            cells.append(_cell(row, row.spread(column)))
            if baseline:
                cells.append(_range(row.ratio(column, baseline), ""))
        yield cells


def _goals(goals: list[Goal]) -> Iterator[list[str]]:
    for goal in goals:
        found = "not measured" if goal.found is None else _number(goal.found)
        verdict = {True: "met", False: "**missed**", None: ""}[goal.met]
        yield [goal.name, f"{'≥' if goal.at_least else '≤'} {_number(goal.needed)}", found, verdict]


def _cell(row: Row, spread: Spread | None) -> str:
    if spread and row.unit == "s" and spread.value < 0.1:
        return _range(Spread(*(1000 * value for value in (spread.value, spread.low, spread.high))), "ms")
    return _range(spread, row.unit)


def _range(spread: Spread | None, unit: str) -> str:
    if spread is None:
        return ""
    value, low, high = (_number(each) for each in (spread.value, spread.low, spread.high))
    shown = f"{value} {unit}".rstrip()
    return shown if low == high else f"{shown} ({low}–{high})"


def _number(value: float) -> str:
    """A number with three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def main() -> None:
    """Write the tables of a saved report into documents."""
    parser = argparse.ArgumentParser(description="Write the tables of a saved benchmark into documents.")
    parser.add_argument("report", type=Path)
    parser.add_argument("documents", type=Path, nargs="+")
    arguments = parser.parse_args()
    report = load(arguments.report)
    for path in arguments.documents:
        path.write_text(insert(report, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
