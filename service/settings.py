"""Every setting of the service: one flat tree, each field documented by its description.

A value comes from the last of these that names it:

    defaults ─▶ a YAML file (`--config`, `SER_CONFIG`) ─▶ environment (`SER_…`) ─▶ command-line flags

Unknown names are errors everywhere, so that a typing mistake never silently leaves a limit at its default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from service.errors import SettingsInvalid

ENV_PREFIX = "SER_"
CONFIG_VARIABLE = "SER_CONFIG"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, as in some containers
        raise ValueError("the home directory is not known; name an absolute path") from None


class Settings(BaseSettings):
    """The settings after all sources are merged; immutable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=True
    )

    # Where to listen.
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="TCP port to listen on; 0 takes any free one.")
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path prefix under which a reverse proxy shows the service, such as `/emotion`.",
    )
    docs: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")

    # Which model, and what runs it.
    model: str = Field(
        default="tiny",
        min_length=1,
        max_length=1024,
        description="The model: `tiny` (embedded, for demonstration), a hub id such as "
        "`iic/emotion2vec_plus_large`, or a local directory in hub layout.",
    )
    backend: Literal["auto", "onnx", "torch"] = Field(
        default="auto", description="What runs the model; `auto` is torch on CUDA and ONNX Runtime on the CPU."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="Where it runs: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes CUDA where torch finds it.",
    )
    dtype: Literal["auto", "fp32", "fp16", "bf16", "int8"] = Field(
        default="auto",
        description="Precision; `auto` is fp32 on the CPU and half precision on CUDA. int8 needs the CPU.",
    )
    threads: int = Field(default=0, ge=0, le=1024, description="Threads of the model on the CPU; 0 takes every core.")
    cache_dir: Annotated[Path, AfterValidator(_expand)] = Field(
        default=Path("~/.cache/emotion2vec-service"), description="Directory in which prepared models are kept."
    )
    offline: bool = Field(
        default=False, description="Never try the network; a model that is not in the cache is an error."
    )

    # What one request may ask for.
    max_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, le=2**40, description="Bytes that one request body may have; more is a 413."
    )
    max_files: int = Field(default=64, ge=1, le=1000, description="Files that one batch request may have.")
    max_duration: float = Field(
        default=300.0,
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds of audio that one file may decode to; more is a 413.",
    )
    timeout: Seconds = Field(
        default=60.0,
        description="Seconds from a request's arrival to its answer; later is a 504. Clients may only shorten it.",
    )
    body_timeout: Seconds = Field(default=30.0, description="Seconds in which a whole request body must arrive.")
    body_idle_timeout: Seconds = Field(
        default=5.0, description="Seconds that an upload may pause without sending a byte."
    )
    header_timeout: Seconds = Field(default=10.0, description="Seconds in which the headers of a request must arrive.")

    # How much work is taken at once.
    max_in_flight: Count = Field(
        default=64, description="Requests that are worked on at the same time; one more is a 429."
    )
    max_queue_requests: Count = Field(default=256, description="Clips that may wait for the model; one more is a 429.")
    max_queue_seconds: float = Field(
        default=1800.0,
        ge=0.1,
        le=10_000_000,
        allow_inf_nan=False,
        description="Seconds of audio that may wait for the model; more is a 429. Bounds the memory of the queue.",
    )
    decode_threads: int = Field(
        default=2, ge=1, le=256, description="Threads that decode uploads and build large answers."
    )

    # Health and shutdown.
    drain_timeout: Seconds = Field(
        default=30.0, description="Seconds that accepted requests have to finish at shutdown."
    )
    stuck_after: Seconds = Field(
        default=120.0,
        description="Seconds that one batch may take before the worker counts as stuck and `/livez` fails.",
    )

    # Logs.
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="One line per record: readable text, or JSON."
    )

    @model_validator(mode="after")
    def _queue_holds_one_clip(self) -> Self:
        """A clip that is allowed must fit into an empty queue; otherwise it would be refused for ever."""
        if self.max_queue_seconds < self.max_duration:
            raise ValueError("max_queue_seconds must not be less than max_duration")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` passes in: it merges the sources, so that it can say where a bad value is from."""
        return (init_settings,)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Merge defaults, the YAML file, the environment and flags.

    Args:
        config: the YAML file; None takes the one that `SER_CONFIG` names, if any.
        flags: settings given explicitly, by field name.

    Raises:
        SettingsInvalid: if a name is unknown or a value bad; the text names every one and where it came from.
    """
    path = config or (Path(named) if (named := os.environ.get(CONFIG_VARIABLE)) else None)
    file_values = _read_yaml(path) if path else {}
    variables = {name: name[len(ENV_PREFIX) :].lower() for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for source, names in (
        (str(path), {name: name for name in file_values}),
        ("environment", {n: field for n, field in variables.items() if n.upper() != CONFIG_VARIABLE}),
        ("flags", {name: name for name in flags}),
    ):
        problems += [
            _unknown(source, name, field) for name, field in names.items() if field not in Settings.model_fields
        ]
        sources |= {field: f"{source}: {name}" for name, field in names.items()}
    if problems:
        raise SettingsInvalid("\n".join(problems))
    values = {**file_values, **EnvSettingsSource(Settings)(), **flags}
    try:
        return Settings(**values)
    except ValidationError as exc:
        raise SettingsInvalid("\n".join(_explain(error, sources) for error in exc.errors())) from None


def add_flags(parser: argparse.ArgumentParser, fields: Iterable[str] | None = None) -> None:
    """Give `parser` one flag for each setting in `fields` (all of them, unless given), with its description as help.

    A flag that is not used leaves no trace in the namespace, so that it hides neither YAML nor environment.
    """
    for name in fields or Settings.model_fields:
        field = Settings.model_fields[name]
        text = f"{field.description} [{_shown_default(field)}]".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction, help=text
            )
        else:
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, metavar="VALUE", help=text)


def flags_of(namespace: argparse.Namespace) -> dict[str, Any]:
    """The settings among the parsed arguments, as `load_settings` takes them."""
    return {name: value for name, value in vars(namespace).items() if name in Settings.model_fields}


def _shown_default(field: FieldInfo) -> str:
    default = field.default
    return str(default).lower() if isinstance(default, bool) else str(default) or "empty"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'not UTF-8'}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise SettingsInvalid(f"{path} is not valid YAML: {exc}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SettingsInvalid(f"{path} must hold one mapping of setting names to values")
    return values


def _unknown(source: str, name: str, field: str) -> str:
    close = get_close_matches(field, Settings.model_fields, n=1)
    if not close:
        return f"{source}: {name} is not a setting"
    spelled = f"{ENV_PREFIX}{close[0].upper()}" if source == "environment" else close[0]
    return f"{source}: {name} is not a setting; did you mean {spelled}?"


def _explain(error: Any, sources: Mapping[str, str]) -> str:
    """One line about one error: where the value came from and what it must be; never the value, which may be secret."""
    field = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{sources.get(field, field)}: {message[0].lower()}{message[1:]}" if field else message
