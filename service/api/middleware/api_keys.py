"""API keys: read from settings and file, and compared with the key of a request."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from pydantic import SecretStr
from starlette.datastructures import Headers

from service.errors import SettingsInvalid
from service.settings.settings import Settings
from service.settings.validation import check_api_key

SUBPROTOCOL = "emotion2vec.stream"
"""The WebSocket subprotocol of the service. A page that sends its key as a subprotocol must offer this one as well:
browsers expect the server to choose one of those offered, and the key is never sent back."""

_BEARER = "bearer."
_MAX_FILE_BYTES = 1024 * 1024


class ApiKeys:
    """The valid API keys, as hashes only.

    Args:
        keys: the keys in plain text.
    """

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._hashes = tuple({_hash(key.get_secret_value()) for key in keys})

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The keys in `settings` and in the file that they name; None if there are neither, so that no key is needed.

        Raises:
            SettingsInvalid: if the file cannot be read, contains no key, or a line that is not a valid key.
        """
        keys = list(settings.api_keys)
        if settings.api_keys_file is not None:
            keys += _read(settings.api_keys_file)
        return cls(keys) if keys else None

    def owner(self, presented: str) -> str | None:
        """A stable name for the caller with this key, from which the key cannot be derived.

        Returns:
            None if it is not one of the keys.
        """
        presented_hash = _hash(presented)
        # Hashed, and compared with every key in constant time, so that the time taken reveals nothing about the keys.
        matches = [compare_digest(presented_hash, known) for known in self._hashes]
        return presented_hash.hex() if any(matches) else None


def presented_key(headers: Headers, subprotocols: Iterable[str]) -> str | None:
    """The key of a request: `Authorization: Bearer KEY`, or `X-API-Key: KEY`, or the subprotocol `bearer.KEY`.

    The subprotocol, percent-encoded where needed, is for pages: in browsers it is the only header of a WebSocket that a
    page can set, and a key in the URL would be logged.

    Args:
        headers: of the request.
        subprotocols: that the client of a WebSocket offers.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    offered = (unquote(each.removeprefix(_BEARER)) for each in subprotocols if each.startswith(_BEARER))
    return headers.get("x-api-key", next(offered, None))


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
