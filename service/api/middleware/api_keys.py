"""API keys: which there are, and whether a caller has one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from pydantic import SecretStr
from starlette.datastructures import Headers

from service.errors import SettingsInvalid
from service.settings.settings import Settings, check_api_key

SUBPROTOCOL = "emotion2vec.stream"
"""What the service speaks over WebSockets. A page that offers its key as a subprotocol must offer this one as well:
browsers want one of those offered chosen, and a key is never repeated."""

_BEARER = "bearer."
_MAX_FILE_BYTES = 1024 * 1024


class ApiKeys:
    """The keys that open the service, as hashes only.

    Args:
        keys: as callers send them.
    """

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._hashes = tuple({_hash(key.get_secret_value()) for key in keys})

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The keys in `settings` and in the file that they name; None where neither is given, and no key is needed.

        Raises:
            SettingsInvalid: if the file cannot be read, holds no key, or something that is no key.
        """
        keys = list(settings.api_keys)
        if settings.api_keys_file is not None:
            keys += _read(settings.api_keys_file)
        return cls(keys) if keys else None

    def owner(self, presented: str) -> str | None:
        """A name for the caller who presents this key, the same each time, from which the key cannot be found.

        Returns:
            None if it is not one of the keys.
        """
        presented_hash = _hash(presented)
        # Hashed first and compared with every key to the end, so that the time taken tells nothing about any of them.
        matches = [compare_digest(presented_hash, known) for known in self._hashes]
        return presented_hash.hex() if any(matches) else None


def presented_key(headers: Headers) -> str | None:
    """The key that a request carries: `Authorization: Bearer KEY`, or else `X-API-Key: KEY`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key")


def offered_key(subprotocols: Sequence[str]) -> str | None:
    """The key that a page offers as a subprotocol, `bearer.KEY`, percent-encoded where it must be.

    Browsers let pages choose no headers of a WebSocket but this one. A key in the address would end up in logs.
    """
    for offered in subprotocols:
        if offered.startswith(_BEARER):
            return unquote(offered.removeprefix(_BEARER))
    return None


def _hash(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> list[SecretStr]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        lines = content.decode("ascii").splitlines()
    except OSError as exc:
        raise SettingsInvalid(f"api_keys_file: {path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"api_keys_file: {path} is not ASCII") from None
    if len(content) > _MAX_FILE_BYTES:
        raise SettingsInvalid(f"api_keys_file: {path} has more than {_MAX_FILE_BYTES} bytes")
    keys = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(check_api_key(SecretStr(line.strip())))
            except ValueError as exc:
                raise SettingsInvalid(f"api_keys_file: {path}, line {number}: {exc}") from None
    if not keys:
        raise SettingsInvalid(f"api_keys_file: {path} holds no key")
    return keys
