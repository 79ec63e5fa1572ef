"""The labels of a model: read from a hub's `tokens.txt`, with their English and Chinese names."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import CheckpointInvalid
from service.results import Label

_MAX_LABELS = 256
_MAX_CHARACTERS = 100
_UNUSED = "unuse"

# For token lists that hold only one of the two names.
_CHINESE = {
    "angry": "生气",
    "disgusted": "厌恶",
    "fearful": "恐惧",
    "happy": "开心",
    "neutral": "中立",
    "other": "其他",
    "sad": "难过",
    "surprised": "吃惊",
    "unknown": "未知",
}
_ENGLISH = {zh: en for en, zh in _CHINESE.items()}


def parse_tokens(text: str) -> tuple[str, ...]:
    """Read the labels of a `tokens.txt`, one a line, in the order of the head's outputs.

    Raises:
        CheckpointInvalid: if there are none or too many, or one is empty, not printable or a duplicate.
    """
    labels = tuple(line.rstrip() for line in text.removeprefix("\ufeff").rstrip().split("\n"))
    check_labels(labels)
    return labels


def check_labels(labels: Sequence[str]) -> None:
    """Check labels, which become part of answers and metrics.

    Raises:
        CheckpointInvalid: if there are too many, one is empty, too long, not printable or a duplicate, or all are
            masked; the message gives its line.
    """
    if len(labels) > _MAX_LABELS:
        raise CheckpointInvalid(f"there are {len(labels)} labels; at most {_MAX_LABELS} are supported")
    seen: dict[str, int] = {}
    for number, native in enumerate(labels, 1):
        if not native.strip() or not native.isprintable() or len(native) > _MAX_CHARACTERS:
            raise CheckpointInvalid(f"label {number} is empty, too long or not printable")
        name = to_label(native).en
        if name in seen:
            raise CheckpointInvalid(f"labels {seen[name]} and {number} are both called {name!r}")
        seen[name] = number
    if len(masked_labels(labels)) == len(labels):
        raise CheckpointInvalid("there is no label that the model may answer")


def masked_labels(labels: Sequence[str]) -> frozenset[int]:
    """Indices of the unused outputs (`unuse_0`, ...), which are never answered."""
    return frozenset(i for i, native in enumerate(labels) if native.startswith(_UNUSED))


def to_label(native: str) -> Label:
    """The English and Chinese names of a token such as `生气/angry`, `angry` or `<unk>`."""
    if native == "<unk>":
        return Label(en="unknown", zh=_CHINESE["unknown"], native=native)
    first, slash, second = native.partition("/")
    if slash and first and second and first.isascii() != second.isascii():
        en, zh = (first, second) if first.isascii() else (second, first)
        return Label(en=en, zh=zh, native=native)
    return Label(en=_ENGLISH.get(native, native), zh=_CHINESE.get(native, native), native=native)
