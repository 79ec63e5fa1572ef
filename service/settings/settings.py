"""Every setting of the service: one flat tree, each field documented by its description.

`service.settings.sources` reads them from files, the environment and flags.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "SER_"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

_API_KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*")


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, as in some containers
        raise ValueError("the home directory is not known; name an absolute path") from None


def _split(value: Any) -> Any:
    """Parts separated by commas, as variables and flags have them, become a list."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def check_api_key(key: SecretStr) -> SecretStr:
    """Let only those keys pass that are hard to guess and that a header can carry (token68 of RFC 9110).

    Raises:
        ValueError: without the key in its text.
    """
    if _API_KEY.fullmatch(key.get_secret_value()) is None:
        raise ValueError("an API key has 16 to 256 characters out of A-Z a-z 0-9 . _ ~ + / -")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(check_api_key)]
Origin = Annotated[str, Field(pattern=r"^https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]


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
    page: bool = Field(default=True, description="Serve the page for people at `/`.")
    docs: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        max_length=100,
        description="Addresses or networks of reverse proxies, separated by commas, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed.",
    )

    # Who may ask, and how often.
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        max_length=1000,
        description="Keys of which callers must have one, separated by commas; without any, everybody may call. "
        "There is no flag, which other users of the machine could read.",
    )
    api_keys_file: Annotated[Path, AfterValidator(_expand)] | None = Field(
        default=None, description="File with more such keys, one a line; read at start."
    )
    public_metrics: bool = Field(default=False, description="Serve `/metrics` without a key where keys are asked for.")
    public_pages: bool = Field(
        default=True, description="Serve `/` and `/docs` without a key where keys are asked for; browsers send none."
    )
    rate_limit: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Requests that one key, or one address where there are no keys, may make a minute on average; one "
        "more is a 429. 0 is no limit.",
    )
    rate_burst: Count = Field(default=10, description="Requests that it may make at once, within that average.")
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(),
        max_length=100,
        description="Origins of web pages that may call this service from a browser, such as "
        "`https://app.example.com`, separated by commas.",
    )

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
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compile the model before it is ready, with CUDA graphs on a GPU: `auto` on CUDA only. Needs torch "
        "and a C compiler; takes minutes at the first start, and some seconds later on.",
    )
    compile_clips: int = Field(
        default=16, ge=1, le=32, description="Most clips at a time for which programs are compiled."
    )
    compile_seconds: float = Field(
        default=10.0,
        ge=2.0,
        le=40.0,
        allow_inf_nan=False,
        description="Seconds of the longest clip for which programs are compiled; longer ones run without.",
    )
    cache_dir: Annotated[Path, AfterValidator(_expand)] = Field(
        default=Path("~/.cache/emotion2vec-service"),
        description="Directory in which prepared models and compiled programs are kept.",
    )
    offline: bool = Field(
        default=False, description="Never try the network; a model that is not in the cache is an error."
    )

    # What one request may ask for.
    max_body_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1024, le=2**40, description="Bytes that one request body may have; more is a 413."
    )
    max_files: int = Field(default=64, ge=1, le=1000, description="Files that one batch request may have.")
    max_duration: float = Field(
        default=3600.0,
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds of audio that one file may decode to; more is a 413.",
    )
    max_utterance_duration: float = Field(
        default=300.0,
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds that it may decode to with granularity utterance or frame, which take it as one; more is "
        "a 413. With granularity segment `max_duration` is the only limit.",
    )
    timeout: Seconds = Field(
        default=60.0,
        description="Seconds from a request's arrival to its answer; later is a 504. Clients may only shorten it.",
    )
    segment_timeout: Seconds = Field(
        default=1800.0, description="The same with granularity segment, to the end of the answer."
    )
    body_timeout: Seconds = Field(default=120.0, description="Seconds in which a whole request body must arrive.")
    body_idle_timeout: Seconds = Field(
        default=5.0, description="Seconds that an upload may pause without sending a byte."
    )
    header_timeout: Seconds = Field(default=10.0, description="Seconds in which the headers of a request must arrive.")
    max_header_bytes: int = Field(
        default=32 * 1024,
        ge=1024,
        le=2**20,
        description="Bytes that path, query and headers of a request may have together; more is a 431.",
    )
    max_headers: int = Field(
        default=100, ge=10, le=10_000, description="Headers that a request may have; more is a 431."
    )

    # How much work is taken at once.
    max_in_flight: Count = Field(
        default=64, description="Requests that are worked on at the same time; one more is a 429."
    )
    max_segment_requests: Count = Field(
        default=8,
        description="Those of them with granularity segment, which take long; one more is a 429. They are never all of "
        "`max_in_flight`, unless that is 1.",
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

    # Streams of live audio.
    max_streams: Count = Field(
        default=64, description="Streams of live audio that are open at the same time; one more is a 429."
    )
    stream_idle_timeout: Seconds = Field(
        default=30.0,
        description="Seconds in which a stream must bring audio, and its client take what it is sent; otherwise it is "
        "closed.",
    )
    max_stream_duration: Seconds = Field(
        default=14_400.0, description="Seconds that a stream may last, and of audio that it may bring."
    )

    # Answers that are kept.
    answer_cache_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        le=2**40,
        description="Bytes of answers that are kept, so that the same clip costs nothing twice; 0 switches it off.",
    )

    # Health and shutdown.
    drain_timeout: Seconds = Field(
        default=30.0, description="Seconds that accepted requests have to finish at shutdown."
    )
    stuck_after: Seconds = Field(
        default=120.0,
        description="Seconds that one batch may take before the worker counts as stuck and `/livez` fails.",
    )

    # Logs and traces.
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="One line per record: readable text, or JSON."
    )
    access_log: bool = Field(default=True, description="Log one line for each request, probes and scrapes excepted.")
    log_file_names: bool = Field(
        default=False,
        description="Name the uploaded files in those lines; a name may tell whom a file is about.",
    )
    traces: bool = Field(
        default=False,
        description="Send OpenTelemetry spans by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says. "
        "Needs the extra `[otel]`.",
    )

    @property
    def needs_key(self) -> bool:
        """Whether callers must have an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def longest_clip(self) -> float:
        """Seconds that a file may last whose channels go through the model in one piece."""
        return min(self.max_utterance_duration, self.max_duration)

    @property
    def segment_permits(self) -> int:
        """How many requests with granularity segment are worked on at once: some permit is left for short ones."""
        return min(self.max_segment_requests, max(1, self.max_in_flight - 1))

    @model_validator(mode="after")
    def _queue_holds_one_clip(self) -> Self:
        """A clip that is allowed must fit into an empty queue; otherwise it would be refused for ever."""
        if self.max_queue_seconds < self.longest_clip:
            raise ValueError("max_queue_seconds must hold the lesser of max_utterance_duration and max_duration")
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
        """Only what `service.settings.sources` passes in: it merges the sources."""
        return (init_settings,)
