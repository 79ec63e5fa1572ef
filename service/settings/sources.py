"""Reads settings from defaults, a YAML file, the environment and flags, and merges them.

The last of these sources that names a setting decides its value:

    defaults ─▶ a YAML file (`--config`, `SER_CONFIG`) ─▶ environment (`SER_…`) ─▶ command-line flags

Unknown names are errors in every source, so that a misspelt limit does not silently keep its default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any

from service.errors import SettingsInvalid
from service.settings.plain_values import plain_values
from service.settings.settings import ENV_PREFIX, SETTINGS, Settings

CONFIG_VARIABLE = "SER_CONFIG"
CLIENT_KEY_VARIABLE = "SER_API_KEY"
"""The API key that the commands `recognize` and `stream` send to a server. It is not a setting of the server."""

_ENVIRONMENT = "environment"

NO_FLAG = frozenset({"api_keys"})
"""Settings that hold secrets and have no flag, because every user of the machine can read command lines."""

_NEVER_EMPTY = frozenset({"api_keys", "api_keys_file"})
"""Settings whose variable must not be empty: if the secret were lost, the service would run without keys. Other
settings count as absent if they are empty."""


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Merge defaults, the YAML file, the environment and flags, for a command that is not a server.

    The environment may contain `SER_API_KEY`, with which commands call a server.

    Args:
        config: the YAML file; None selects the file that `SER_CONFIG` names, if any.
        flags: settings given explicitly, by field name.

    Raises:
        SettingsInvalid: if names are unknown or values invalid. The text lists all of them with their sources.
    """
    return _merged(config, flags, [each for each in _variables() if each.name.upper() != CLIENT_KEY_VARIABLE])[0]


def load_settings_and_sources(config: Path | None = None, **flags: Any) -> tuple[Settings, dict[str, str]]:
    """Merge as `load_settings`, for a server; also return the source of each value by field name, without defaults.

    Here `SER_API_KEY` is an unknown name: as a misspelt `SER_API_KEYS` it would leave the server open to everybody.

    Raises:
        SettingsInvalid: as `load_settings` does.
    """
    return _merged(config, flags, [*_variables()])


def _merged(
    config: Path | None, flags: dict[str, Any], variables: list[_SourceValue]
) -> tuple[Settings, dict[str, str]]:
    path = config or (Path(named) if (named := os.environ.get(CONFIG_VARIABLE)) else None)
    file_values: dict[str, Any] = {}
    if path:
        from service.settings.yaml_file import read_yaml  # most commands have no such file

        file_values = read_yaml(path)
    entries = [
        *(_SourceValue(str(path), name, name, value) for name, value in file_values.items()),
        *variables,
        *(_SourceValue("flags", name, name, value) for name, value in flags.items()),
    ]
    problems = [f"{each.source}: {problem}" for each in entries if (problem := _problem(each))]
    if problems:
        raise SettingsInvalid("\n".join(problems))
    sources = {each.field: f"{each.source}: {each.name}" for each in entries if not each.absent}
    given = {each.field: each.value for each in variables if not each.absent}
    merged = {**file_values, **given, **flags}
    values = plain_values(merged)
    if values is None:
        from service.settings.validation import validated  # imports pydantic

        values = validated(merged, sources)
    try:
        return Settings(**values), sources
    except ValueError as error:
        raise SettingsInvalid(str(error)) from None


def describe_settings(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """The effective values, one line of YAML each, with the source as a comment. Secrets are hidden."""
    import yaml

    for name in SETTINGS:
        value = _plain_yaml(getattr(settings, name))
        # Dumped as a list, because a scalar dumped alone ends with a document end marker.
        listed = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1_000_000)
        line = f"{name}: {listed.strip()[1:-1]}"
        yield f"{line:<44}  # {sources.get(name, 'default')}"


def _plain_yaml(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_yaml(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def add_flags(parser: argparse.ArgumentParser, fields: Iterable[str] | None = None) -> None:
    """Add one flag for each setting in `fields` (by default all) to `parser`, but none for secrets.

    The description of the setting is the help of the flag. Unused flags are not in the namespace, so that they do not
    override the file or the environment.
    """
    for name in fields or SETTINGS:
        field = SETTINGS[name]
        text = f"{field.metadata['description']} [{shown_default(field)}]".replace("%", "%%")
        options: dict[str, Any] = {"metavar": "VALUE", "help": text}
        if name in NO_FLAG:
            options = {"action": _NoFlag, "help": argparse.SUPPRESS}
        elif field.type is bool:
            options = {"action": argparse.BooleanOptionalAction, "help": text}
        parser.add_argument("--" + name.replace("_", "-"), dest=name, default=argparse.SUPPRESS, **options)


class _NoFlag(argparse.Action):
    """Refuses a secret without printing it, as argparse does with unknown flags."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        variable = ENV_PREFIX + self.dest.upper()
        parser.error(
            f"secrets cannot be flags, which other users can read: set {variable} or {self.option_strings[0]}-file"
        )


def flags_of(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings among the parsed arguments, as keyword arguments for `load_settings`."""
    return {name: value for name, value in vars(namespace).items() if name in SETTINGS}


def shown_default(field: Field[Any]) -> str:
    """The default of a setting, as help and documentation show it."""
    default = field.default
    if isinstance(default, bool):
        return str(default).lower()
    return "empty" if default is None or default in ("", ()) else str(default)


@dataclass(frozen=True, slots=True)
class _SourceValue:
    """A value from one source: the name it has there, and the field it sets."""

    source: str
    name: str
    field: str
    value: Any

    @property
    def absent(self) -> bool:
        return self.source == _ENVIRONMENT and self.value == ""


def _variables() -> Iterator[_SourceValue]:
    for name, value in os.environ.items():
        if name.upper().startswith(ENV_PREFIX) and name.upper() != CONFIG_VARIABLE:
            yield _SourceValue(_ENVIRONMENT, name, name[len(ENV_PREFIX) :].lower(), value)


def _problem(entry: _SourceValue) -> str | None:
    """An error that the validation of the field would not find, or would not explain."""
    if entry.field not in SETTINGS:
        return _unknown(entry)
    if entry.absent and entry.field in _NEVER_EMPTY:
        return f"{entry.name} is empty; unset it to run without keys"
    if isinstance(entry.value, bool) and SETTINGS[entry.field].type in (int, float):
        return f"{entry.name}: must be a number, not true or false"  # YAML reads yes, no, on and off as booleans
    return None


def _unknown(entry: _SourceValue) -> str:
    if isinstance(entry.value, dict) and entry.value.keys() & SETTINGS.keys():
        return f"{entry.name} is not a setting; settings are not grouped: move its entries to the top level"
    from difflib import get_close_matches

    close = get_close_matches(entry.field, SETTINGS, n=1)
    if not close:
        return f"{entry.name} is not a setting"
    spelled = ENV_PREFIX + close[0].upper() if entry.source == _ENVIRONMENT else close[0]
    return f"{entry.name} is not a setting; did you mean {spelled}?"
