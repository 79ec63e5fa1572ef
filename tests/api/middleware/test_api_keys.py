from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from service.api.middleware import api_keys as module
from service.api.middleware.api_keys import ApiKeys, presented_key
from service.errors import SettingsInvalid
from service.settings.settings import Settings
from service.settings.sources import load_settings

FIRST = "first-key-0123456789"
SECOND = "second.key~0123456789+/=="


def keys(*texts: str) -> ApiKeys:
    return ApiKeys(SecretStr(text) for text in texts)


def test_each_key_has_an_owner_whose_name_does_not_contain_the_key() -> None:
    known = keys(FIRST, SECOND)
    owners = {known.owner(FIRST), known.owner(SECOND)}
    assert len(owners) == 2
    assert None not in owners
    assert not any(FIRST in str(owner) or SECOND in str(owner) for owner in owners)
    assert known.owner(FIRST) == keys(FIRST).owner(FIRST)


@pytest.mark.parametrize(
    "presented", ["", FIRST[:-1], FIRST + "x", FIRST.upper(), " " + FIRST, "é\udcff", "x" * 100_000]
)
def test_other_keys_have_no_owner(presented: str) -> None:
    assert keys(FIRST, SECOND).owner(presented) is None


def test_keys_are_hashed_and_all_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(presented: bytes, known: bytes) -> bool:
        compared.append((presented, known))
        return hmac.compare_digest(presented, known)

    monkeypatch.setattr(module, "compare_digest", compare)
    known = keys(FIRST, SECOND)
    for presented in (FIRST, SECOND, "neither"):
        compared.clear()
        known.owner(presented)
        assert len(compared) == 2  # no early return, whichever key matches
        for one, other in compared:
            assert len(one) == len(other) == 32
            assert FIRST.encode() not in one + other
    assert FIRST not in repr(vars(known))


@pytest.mark.parametrize(
    ("headers", "subprotocols", "presented"),
    [
        ({}, (), None),
        ({"authorization": "Bearer abc"}, (), "abc"),
        ({"authorization": "bearer  abc "}, (), "abc"),
        ({"authorization": "Bearer"}, (), ""),
        ({"x-api-key": "abc"}, (), "abc"),
        ({"x-api-key": ""}, (), ""),
        ({"authorization": "Basic xyz", "x-api-key": "abc"}, (), "abc"),  # credentials of a proxy
        ({"authorization": "Basic xyz"}, (), None),
        ({"authorization": "Bearer abc", "x-api-key": "def"}, (), "abc"),
        ({}, ("emotion2vec.stream",), None),
        ({}, ("emotion2vec.stream", "bearer.a%2Fc"), "a/c"),
        ({"x-api-key": "abc"}, ("bearer.def",), "abc"),
    ],
)
def test_where_a_key_is_read_from(
    headers: dict[str, str], subprotocols: tuple[str, ...], presented: str | None
) -> None:
    assert presented_key(Headers(headers), subprotocols) == presented


def test_keys_from_settings_and_file_are_combined(tmp_path: Path) -> None:
    assert ApiKeys.of(Settings()) is None
    file = tmp_path / "keys"
    file.write_bytes(f"# for the batch jobs\r\n\r\n  {SECOND}  \r\n".encode())
    both = ApiKeys.of(load_settings(api_keys=FIRST, api_keys_file=str(file)))
    assert both is not None
    assert both.owner(FIRST)
    assert both.owner(SECOND)
    assert both.owner("# for the batch jobs") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# nothing yet\n\n", "holds no key"),
        (f"{FIRST}\nshort\n".encode(), "line 2: an API key has 16 to 256 characters"),
        (b"two keys in one line", "line 1: an API key has"),
        ("schlüsselschlüsselschlüssel".encode(), "is not ASCII"),
        (b"k" * (1024 * 1024 + 1), "more than 1048576 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_without_valid_keys_is_an_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsInvalid, match=reason) as caught:
        ApiKeys.of(Settings(api_keys_file=file))
    assert "short" not in caught.value.detail
    assert "two keys" not in caught.value.detail
