"""Makes dataclasses from parsed JSON, as their annotations say, without pydantic, whose import delays the first answer.

Only the types that manifests have are known: dataclasses, str, int, float, bool, `tuple[T, ...]`, `dict[str, T]` and
`T | None`. Values are not converted: `"1"` is not an integer. The dataclasses check ranges in `__post_init__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NAMES = {str: "a text", int: "an integer", float: "a number", bool: "true or false", NoneType: "null"}


class WrongTypeError(ValueError):
    """A value is not of the type that its place needs; the text names the place."""


def from_json(kind: type[T], value: Any, place: str = "the document") -> T:
    """Make an instance of a dataclass.

    Args:
        kind: the dataclass.
        value: parsed JSON.
        place: what errors call the value; its members are called by their names.

    Raises:
        WrongTypeError: if a member is missing, unknown or of another type.
        Exception: what the dataclass raises for its values.
    """
    members = _mapping(value, place)
    prefix = "" if place == "the document" else f"{place}."
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name in members:
        if name not in known:
            raise WrongTypeError(f"{prefix}{name} is not known")
    for name, field in known.items():
        if name not in members and field.default is MISSING:
            raise WrongTypeError(f"{prefix}{name} is missing")
    types = get_type_hints(kind)
    return kind(**{name: _typed(types[name], member, prefix + name) for name, member in members.items()})


def _typed(kind: Any, value: Any, place: str) -> Any:
    """The value as an instance of the annotation `kind`."""
    if is_dataclass(kind):
        return from_json(kind, value, place)  # type: ignore[arg-type]  # a type, not an instance
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise WrongTypeError(f"{place} must be a list")
        return tuple(_typed(get_args(kind)[0], item, f"{place}.{index}") for index, item in enumerate(value))
    if origin is dict:
        items = _mapping(value, place).items()
        return {name: _typed(get_args(kind)[1], item, f"{place}.{name}") for name, item in items}
    if origin is UnionType:
        return None if value is None else _typed(get_args(kind)[0], value, place)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise WrongTypeError(f"{place} must be {_NAMES[kind]}")
    return value


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WrongTypeError(f"{place} must be an object")
    return value
