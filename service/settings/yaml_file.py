"""Reads a YAML file of settings, which may be anything: huge, endless, nested a million times, or contradictory."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from service.errors import SettingsInvalid

_MAX_BYTES = 64 * 1024
"""Some fifteen times the file that names every setting."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The one mapping that the file at `path` holds; empty where it holds nothing.

    Raises:
        SettingsInvalid: if the file cannot be read, or is not such a mapping. The text has the place in the file, never
            what stands there, which may be secret.
    """
    try:
        # Open ended: the size of a device or a pipe is not known beforehand.
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'not UTF-8'}") from None
    if len(content) > _MAX_BYTES:
        raise SettingsInvalid(f"{path} has more than {_MAX_BYTES} bytes")
    try:
        values = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader that takes even less
    except yaml.YAMLError as exc:
        raise SettingsInvalid(f"{path} is not valid YAML{_place(exc)}") from None
    except (ValueError, RecursionError):  # a date that does not exist, brackets in brackets
        raise SettingsInvalid(f"{path} is not valid YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsInvalid(f"{path} must hold one mapping of setting names to values")
    return values


class _Loader(yaml.SafeLoader):
    """Takes plain values only.

    Repeated keys are refused, of which YAML would silently take the last, and so are aliases, with which small files
    explode, and tags, which settings have no use for.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in the base class."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML does not annotate it
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors and tags are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As in the base class."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is there more than once", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _place(error: yaml.YAMLError) -> str:
    """Where and what, without the lines around it that the error's own text quotes."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    mark = error.problem_mark
    return f": {error.problem} (line {mark.line + 1}, column {mark.column + 1})"
