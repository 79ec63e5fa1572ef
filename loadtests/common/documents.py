"""Writes results of a command into a document, between the marks `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def insert(path: Path, name: str, text: str) -> None:
    """Replace the text between the marks of a name.

    Raises:
        ValueError: if the document does not contain these marks exactly once.
    """
    document = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)"
    changed, count = re.subn(pattern, lambda marks: f"{marks[1]}{text}{marks[2]}", document, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} has {count} places between <!-- {name} --> and <!-- end of {name} -->")
    path.write_text(changed, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def fact_list(facts: dict[str, str], *names: str) -> str:
    """A Markdown list of some of the facts from `loadtests.common.machine.facts`."""
    return "".join(f"- {name}: {facts[name]}\n" for name in names)
