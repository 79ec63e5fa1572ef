"""Reads values of settings that are plainly valid, so that flags and variables need no pydantic.

Its import takes as long as half of the rest of the command line. What is not plain is left to
`service.settings.validation`, which decides whether it is valid and explains why not; a test compares both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from service.settings.settings import SETTINGS

_INTEGER = re.compile(r"(0|[1-9][0-9]{0,14})")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?")


def plain_values(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Convert values, by the name of the setting, to the types of their settings; None if any of them is not plain."""
    read = {name: _plain(SETTINGS[name], value) for name, value in values.items()}
    return None if any(value is None for value in read.values()) else read


def _plain(definition: Field[Any], value: Any) -> Any:
    kind = definition.type
    if kind is bool and isinstance(value, bool):
        return value
    # Texts of other characters may be invalid Unicode.
    if not isinstance(value, str) or not value.isascii():
        return None
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else None
    limits = definition.metadata["limits"]
    if kind is int:
        return _within(int(value), **limits) if _INTEGER.fullmatch(value) else None
    if kind is float:
        return _within(float(value), **limits) if _DECIMAL.fullmatch(value) else None
    if kind is str:
        return value if _fits(value, **limits) else None
    if kind in (Path, Path | None):
        return None if value.startswith("~") else Path(value)
    return None


def _within(number: float, *, le: float, ge: float = 0, gt: float = -1, allow_inf_nan: bool = False) -> float | None:
    return number if ge <= number <= le and number > gt else None


def _fits(text: str, *, min_length: int = 0, max_length: int = 4096, pattern: str = "") -> bool:
    return min_length <= len(text) <= max_length and (not pattern or re.fullmatch(pattern, text) is not None)
