"""Reads a YAML file of settings."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from service.errors import SettingsInvalid


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that the file at `path` contains; empty if the file is empty.

    Raises:
        SettingsInvalid: if the file cannot be read or is not such a mapping. The text gives the position in the file
            but does not quote it, because it may contain secrets.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - derived from SafeLoader
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{path} cannot be read: not UTF-8") from None
    except yaml.YAMLError as error:
        raise SettingsInvalid(f"{path} is not valid YAML{_position(error)}") from None
    except ValueError:  # such as a date that does not exist
        raise SettingsInvalid(f"{path} is not valid YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsInvalid(f"{path} must contain one mapping of setting names to values")
    return values


class _Loader(yaml.SafeLoader):
    """Refuses repeated keys, of which YAML would silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As in the base class."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, "a key is repeated", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _position(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the lines that the text of the error quotes."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    mark = error.problem_mark
    return f": {error.problem} (line {mark.line + 1}, column {mark.column + 1})"
