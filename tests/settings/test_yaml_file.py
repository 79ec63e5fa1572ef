from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsInvalid
from service.settings.yaml_file import read_yaml


def read(path: Path, text: str) -> dict[str, object]:
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


def test_plain_values(tmp_path: Path) -> None:
    text = "a: 1\nb: [x, 'y']  # comment\nc:\n  - 1.5\nd: {e: yes}\nf: null\ng: ''\n"
    expected = {"a": 1, "b": ["x", "y"], "c": [1.5], "d": {"e": True}, "f": None, "g": ""}
    assert read(tmp_path / "a.yaml", text) == expected
    assert read(tmp_path / "a.yaml", "# nothing\n") == {}


REFUSED = {
    "a list": ("- port\n- 1\n", "must hold one mapping"),
    "a text": ("port\n", "must hold one mapping"),
    "a number as key": ("1: 2\n", "must hold one mapping"),
    "a list as key": ("? [1]\n: 2\n", r"found unhashable key \(line 1"),
    "an open bracket": ("port: [\n", r"not valid YAML: .* \(line 2"),
    "the same key twice": ("port: 1\nhost: x\nport: 2\n", r"a key is there more than once \(line 3, column 1\)"),
    "the same key twice within": ("a: {b: 1, b: 2}\n", r"a key is there more than once \(line 1, column 11\)"),
    "two documents": ("a: 1\n---\nb: 1\n", "another document"),
    "code": ("a: !!python/object/apply:os.system ['true']\n", "anchors and tags are not supported"),
    "a tag": ("a: !!int x\n", "anchors and tags are not supported"),
    "a bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and tags are not supported"),
    "a merge": ("<<: {a: 1}\n", "not valid YAML"),
    "brackets in brackets": ("a: " + "[" * 2_000, "not valid YAML"),
    "lists in lists": ("- " * 2_000, "not valid YAML"),
    "a day that does not exist": ("a: 2001-99-99\n", "not valid YAML"),
    "a number of 5000 digits": ("a: " + "1" * 5000, "not valid YAML"),
    "a control character": ("a: \x01\n", "not valid YAML"),
    "more than 64 KiB": ("#" * 65_537, "has more than 65536 bytes"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_file_of_settings(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsInvalid, match=reason):
        read(tmp_path / "a.yaml", text)


@pytest.mark.parametrize(
    "text",
    ["api_keys: secret: x", "api_keys: [secret", "api_keys: 'secret", "a: &secret 1", "a: !secret 1", "b: *secret"],
)
def test_errors_do_not_quote_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(tmp_path / "a.yaml", text)
    assert "secret" not in caught.value.detail


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(SettingsInvalid, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(SettingsInvalid, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without end")
def test_a_file_without_end() -> None:
    with pytest.raises(SettingsInvalid, match="has more than 65536 bytes"):
        read_yaml(Path("/dev/zero"))
