"""Puts what a command has found into a document, between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a name.

    Raises:
        ValueError: if the document does not have these marks, once.
    """
    document = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)"
    changed, count = re.subn(pattern, lambda marks: f"{marks[1]}{text}{marks[2]}", document, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path} has {count} places between <!-- {name} --> and <!-- end of {name} -->")
    path.write_text(changed, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a Markdown table; a `|` in a cell stays a character."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def listed(facts: dict[str, str], *names: str) -> str:
    """Lines of a Markdown list with some of `loadtests.machine.facts`."""
    return "".join(f"- {name}: {facts[name]}\n" for name in names)
