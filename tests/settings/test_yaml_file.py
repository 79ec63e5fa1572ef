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


INVALID = {
    "a list": ("- port\n- 1\n", "must contain one mapping"),
    "a text": ("port\n", "must contain one mapping"),
    "a number as key": ("1: 2\n", "must contain one mapping"),
    "a list as key": ("? [1]\n: 2\n", r"found unhashable key \(line 1"),
    "an open bracket": ("port: [\n", r"not valid YAML: .* \(line 2"),
    "a repeated key": ("port: 1\nhost: x\nport: 2\n", r"a key is repeated \(line 3, column 1\)"),
    "a repeated key of a nested mapping": ("a: {b: 1, b: 2}\n", r"a key is repeated \(line 1, column 11\)"),
    "a repeated key in other quotes": ("port: 1\n'port': 2\n", r"a key is repeated \(line 2, column 1\)"),
    "two documents": ("a: 1\n---\nb: 1\n", "another document"),
    "code": ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    "a date that does not exist": ("a: 2001-99-99\n", "not valid YAML"),
    "a control character": ("a: \x01\n", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "reason"), INVALID.values(), ids=INVALID.keys())
def test_invalid_files(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsInvalid, match=reason):
        read(tmp_path / "a.yaml", text)


@pytest.mark.parametrize(
    "text", ["api_keys: secret: x", "api_keys: [secret", "api_keys: 'secret", "secret: 1\nsecret: 2", "a: 1\nsecret"]
)
def test_errors_do_not_quote_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read(tmp_path / "a.yaml", text)
    assert "secret" not in caught.value.detail


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(SettingsInvalid, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(SettingsInvalid, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
