"""Where the values of settings come from.

A value comes from the last of these that names it:

    defaults ─▶ a YAML file (`--config`, `SER_CONFIG`) ─▶ environment (`SER_…`) ─▶ command-line flags

Unknown names are errors everywhere, so that a typing mistake never silently leaves a limit at its default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from service.errors import SettingsInvalid
from service.settings.settings import ENV_PREFIX, Settings
from service.settings.yaml_file import read_yaml

CONFIG_VARIABLE = "SER_CONFIG"
CLIENT_KEY_VARIABLE = "SER_API_KEY"
"""The key with which a command calls a server: no setting, and easily mistaken for that of the server's own keys."""

_ENVIRONMENT = "environment"

NO_FLAG = frozenset({"api_keys"})
"""Settings that hold secrets: what stands on a command line is there for every user of the machine to read."""

_NEVER_EMPTY = frozenset({"api_keys", "api_keys_file"})
"""An empty variable counts as absent, except where a secret that got lost on its way would open the service."""


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Merge defaults, the YAML file, the environment and flags, for a command that serves nobody.

    The key with which commands call a server may be in the environment then.

    Args:
        config: the YAML file; None takes the one that `SER_CONFIG` names, if any.
        flags: settings given explicitly, by field name.

    Raises:
        SettingsInvalid: if a name is unknown or a value bad; the text names every one and where it came from.
    """
    return _merged(config, flags, [each for each in _variables() if each.name.upper() != CLIENT_KEY_VARIABLE])[0]


def trace_settings(config: Path | None = None, **flags: Any) -> tuple[Settings, dict[str, str]]:
    """Merge them for a server; also says by field where each value came from, defaults left out.

    Raises:
        SettingsInvalid: as `load_settings` does.
    """
    return _merged(config, flags, list(_variables()))


def _merged(config: Path | None, flags: dict[str, Any], variables: list[_Given]) -> tuple[Settings, dict[str, str]]:
    path = config or (Path(named) if (named := os.environ.get(CONFIG_VARIABLE)) else None)
    file_values = read_yaml(path) if path else {}
    given = [
        *(_Given(str(path), name, name, value) for name, value in file_values.items()),
        *variables,
        *(_Given("flags", name, name, value) for name, value in flags.items()),
    ]
    problems = [f"{each.source}: {problem}" for each in given if (problem := _problem(each))]
    if problems:
        raise SettingsInvalid("\n".join(problems))
    sources = {each.field: f"{each.source}: {each.name}" for each in given if not each.absent}
    try:
        settings = Settings(**{**file_values, **EnvSettingsSource(Settings)(), **flags})
    except ValidationError as exc:
        raise SettingsInvalid("\n".join(_explain(error, sources) for error in exc.errors())) from None
    return settings, sources


def described(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """The effective values, one line of YAML each, with where they came from as a comment. Secrets are hidden."""
    for name, value in settings.model_dump(mode="json").items():
        listed = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1_000_000)
        line = f"{name}: {listed.strip()[1:-1]}"  # a value by itself would be a document, with an end of its own
        yield f"{line:<44}  # {sources.get(name, 'default')}"


def add_flags(parser: argparse.ArgumentParser, fields: Iterable[str] | None = None) -> None:
    """Give `parser` one flag for each setting in `fields` (all of them, unless given), but none for secrets.

    A setting's description is the flag's help. A flag that is not used leaves no trace in the namespace, so that it
    hides neither YAML nor environment.
    """
    for name in fields or Settings.model_fields:
        field = Settings.model_fields[name]
        text = f"{field.description} [{shown_default(field)}]".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if name in NO_FLAG:
            parser.add_argument(flag, action=_NoFlag, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        elif field.annotation is bool:
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction, help=text
            )
        else:
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, metavar="VALUE", help=text)


class _NoFlag(argparse.Action):
    """Refuses a secret without repeating it, which argparse would do with a flag that it does not know."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        variable = ENV_PREFIX + self.dest.upper()
        parser.error(
            f"secrets are no flags, which everybody here can read: set {variable} or {self.option_strings[0]}-file"
        )


def flags_of(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings among the parsed arguments, as `load_settings` takes them."""
    return {name: value for name, value in vars(namespace).items() if name in Settings.model_fields}


def shown_default(field: FieldInfo) -> str:
    """A setting's default, as help and documentation show it."""
    default = field.default
    if isinstance(default, bool):
        return str(default).lower()
    return "empty" if default is None or default in ("", ()) else str(default)


@dataclass(frozen=True, slots=True)
class _Given:
    """One value, the name that its source gives it, and the field that this stands for."""

    source: str
    name: str
    field: str
    value: Any

    @property
    def absent(self) -> bool:
        return self.source == _ENVIRONMENT and self.value == ""


def _variables() -> Iterator[_Given]:
    for name, value in os.environ.items():
        if name.upper().startswith(ENV_PREFIX) and name.upper() != CONFIG_VARIABLE:
            yield _Given(_ENVIRONMENT, name, name[len(ENV_PREFIX) :].lower(), value)


def _problem(given: _Given) -> str | None:
    """What is wrong with a value before its field looks at it."""
    if given.field not in Settings.model_fields:
        return _unknown(given)
    if given.absent and given.field in _NEVER_EMPTY:
        return f"{given.name} is empty; unset it to go without"
    if isinstance(given.value, bool) and Settings.model_fields[given.field].annotation in (int, float):
        return f"{given.name}: must be a number, not true or false"  # which YAML makes of yes, no, on and off
    return None


def _unknown(given: _Given) -> str:
    if isinstance(given.value, dict) and given.value.keys() & Settings.model_fields.keys():
        return f"{given.name} is not a setting; settings are not grouped: write what it holds without it"
    close = get_close_matches(given.field, Settings.model_fields, n=1)
    if not close:
        return f"{given.name} is not a setting"
    spelled = ENV_PREFIX + close[0].upper() if given.source == _ENVIRONMENT else close[0]
    return f"{given.name} is not a setting; did you mean {spelled}?"


def _explain(error: Any, sources: Mapping[str, str]) -> str:
    """One line about one error: where the value came from and what it must be; never the value, which may be secret."""
    field = str(error["loc"][0]) if error["loc"] else ""
    place = "".join(f" (entry {part + 1})" for part in error["loc"][1:2] if isinstance(part, int))
    message = error["msg"].removeprefix("Value error, ")
    return f"{sources.get(field, field)}{place}: {message[0].lower()}{message[1:]}" if field else message
