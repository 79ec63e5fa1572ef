from __future__ import annotations

import pytest

from service.errors import CheckpointInvalid
from service.model.labels import check_labels, masked_labels, parse_tokens, to_label
from service.results import Label


@pytest.mark.parametrize(
    ("native", "en", "zh"),
    [
        ("生气/angry", "angry", "生气"),
        ("angry/生气", "angry", "生气"),
        ("angry", "angry", "生气"),
        ("生气", "angry", "生气"),
        ("<unk>", "unknown", "未知"),
        ("calm", "calm", "calm"),
        ("a/b", "a/b", "a/b"),
        ("unuse_0", "unuse_0", "unuse_0"),
    ],
)
def test_spellings(native: str, en: str, zh: str) -> None:
    assert to_label(native) == Label(en=en, zh=zh, native=native)


@pytest.mark.parametrize("text", ["生气/angry\n<unk>", "生气/angry\r\n<unk>\r\n", "\ufeff生气/angry \n<unk>\n\n"])
def test_lines(text: str) -> None:
    assert parse_tokens(text) == ("生气/angry", "<unk>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "label 1 is empty"),
        ("angry\n\nsad", "label 2 is empty"),
        ("angry\nsa\x07d", "label 2"),
        ("angry\n" + "x" * 101, "label 2"),
        ("angry\nsad\nangry", "labels 1 and 3"),
        ("angry\n生气/angry", "labels 1 and 2"),
        ("unuse_0\nunuse_1", "no label"),
        ("\n".join(f"e{i}" for i in range(257)), "257"),
    ],
)
def test_unusable_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        parse_tokens(text)


def test_unused_labels_are_masked() -> None:
    labels = ("angry", "unuse_0", "sad", "unused")
    check_labels(labels)
    assert masked_labels(labels) == {1, 3}
