"""Checks values of settings with pydantic against the definitions in `service.settings.settings`.

Only values that `service.settings.plain_values` leaves open come here: those of a YAML file, lists, and whatever is not
plainly valid, so that its error is explained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    create_model,
)

from service.errors import SettingsInvalid
from service.settings.settings import SETTINGS, expand

_API_KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*")


def _split(value: Any) -> Any:
    """Split a text at its commas, as in variables and flags; leave lists as they are."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def check_api_key(key: SecretStr) -> SecretStr:
    """Accept keys that are long enough and that a header can carry (token68 of RFC 9110).

    Raises:
        ValueError: if the key is not acceptable. The text does not contain the key.
    """
    if _API_KEY.fullmatch(key.get_secret_value()) is None:
        raise ValueError("an API key has 16 to 256 characters out of A-Z a-z 0-9 . _ ~ + / -")
    return key


_ApiKey = Annotated[SecretStr, AfterValidator(check_api_key)]
_Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]
_Host = Annotated[str, Field(max_length=255, pattern=r"^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])$")]
_Path = Annotated[Path, AfterValidator(expand)]

_TYPES: dict[str, Any] = {
    "trusted_proxies": Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_split)],
    "allowed_hosts": Annotated[tuple[_Host, ...], BeforeValidator(_split)],
    "api_keys": Annotated[tuple[_ApiKey, ...], BeforeValidator(_split)],
    "api_keys_file": _Path | None,
    "cors_origins": Annotated[tuple[_Origin, ...], BeforeValidator(_split)],
    "uds": _Path | None,
    "cache_dir": _Path,
}
"""Types by which pydantic reads a setting, where its annotation does not say everything."""


def validated(values: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """Convert values to the types of their settings.

    Args:
        values: by the name of the setting.
        sources: where each came from, for errors.

    Raises:
        SettingsInvalid: if values are invalid. The text lists all of them with their sources.
    """
    try:
        model = _model().model_validate(values)
    except ValidationError as exc:
        raise SettingsInvalid("\n".join(_explain(error, sources) for error in exc.errors())) from None
    return {name: getattr(model, name) for name in model.model_fields_set}


@cache
def _model() -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (_TYPES.get(name, each.type), Field(default=each.default, **each.metadata["limits"]))
        for name, each in SETTINGS.items()
    }
    return create_model("Settings", __config__=ConfigDict(extra="forbid"), **fields)


def _explain(error: Any, sources: Mapping[str, str]) -> str:
    """One line about one error: the source and what is required; not the value, which may be secret."""
    field = str(error["loc"][0])
    place = "".join(f" (entry {part + 1})" for part in error["loc"][1:2] if isinstance(part, int))
    message = error["msg"].removeprefix("Value error, ")
    return f"{sources[field]}{place}: {message[0].lower()}{message[1:]}"
