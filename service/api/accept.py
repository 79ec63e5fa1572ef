"""Which of the two forms of an answer a client asks for, by the header `Accept` (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

JSON = "application/json"
NDJSON = "application/x-ndjson"

_QUALITY = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")


def wants_lines(accept: Iterable[str]) -> bool:
    """Whether `NDJSON` is named, and no less wanted than `JSON`.

    A range such as `*/*` or `application/*` is no wish for lines, which few programs can read.

    Args:
        accept: the values of all headers of that name.
    """
    qualities = dict(_ranges(",".join(accept)))
    lines = qualities.get(NDJSON, 0.0)
    whole = next((qualities[each] for each in (JSON, "application/*", "*/*") if each in qualities), 0.0)
    return lines > 0 and lines >= whole


def _ranges(accept: str) -> Iterable[tuple[str, float]]:
    """Media ranges and how much each is wanted, from 0 to 1; what cannot be read is left out."""
    for each in accept.split(","):
        media, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((value for part in parameters if (value := part.removeprefix("q=")) != part), "1")
        if media and _QUALITY.fullmatch(quality):
            yield media, float(quality)
