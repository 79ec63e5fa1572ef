"""Every setting of the service, as one flat model; each field is documented by its description.

`service.settings.sources` reads the values from files, the environment and flags.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    model_validator,
)

ENV_PREFIX = "SER_"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

_API_KEY = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*")


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, as in some containers
        raise ValueError("the home directory is not known; use an absolute path") from None


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


ApiKey = Annotated[SecretStr, AfterValidator(check_api_key)]
Origin = Annotated[str, Field(pattern=r"^https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]


class Settings(BaseModel):
    """The settings after all sources have been merged; immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    # Where to listen.
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="TCP port to listen on; 0 selects any free port.")
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path prefix under which a reverse proxy serves this service, such as `/emotion`.",
    )
    page: bool = Field(default=True, description="Serve the web page at `/`.")
    docs: bool = Field(default=True, description="Serve `/docs` and `/openapi.json`.")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_split)] = Field(
        default=(),
        max_length=100,
        description="Addresses or networks of reverse proxies, separated by commas, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are trusted.",
    )

    # Who may call, and how often.
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(_split)] = Field(
        default=(),
        max_length=1000,
        description="API keys, separated by commas; callers must send one of them. Without keys, everybody may call. "
        "There is no flag, because other users of the machine could read it.",
    )
    api_keys_file: Annotated[Path, AfterValidator(_expand)] | None = Field(
        default=None, description="File with more API keys, one on each line; read at start."
    )
    public_metrics: bool = Field(
        default=False, description="Serve `/metrics` without a key even if keys are configured."
    )
    public_pages: bool = Field(
        default=True,
        description="Serve `/` and `/docs` without a key even if keys are configured, because browsers send none.",
    )
    rate_limit: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Requests per minute, on average, for each key, or for each address if there are no keys; more are "
        "answered with 429. 0 means no limit.",
    )
    rate_burst: Count = Field(
        default=10, description="Requests that each key or address may make at once, within `rate_limit`."
    )
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(_split)] = Field(
        default=(),
        max_length=100,
        description="Origins of web pages that may call this service from a browser, such as "
        "`https://app.example.com`, separated by commas.",
    )

    # The model, and how it is run.
    model: str = Field(
        default="tiny",
        min_length=1,
        max_length=1024,
        description="The model: `tiny` (embedded, for demonstration), a hub id such as "
        "`iic/emotion2vec_plus_large`, or a local directory in hub layout.",
    )
    backend: Literal["auto", "onnx", "torch"] = Field(
        default="auto", description="Library that runs the model; `auto` is torch on CUDA and ONNX Runtime on the CPU."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="Device that runs the model: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is CUDA if torch finds it.",
    )
    dtype: Literal["auto", "fp32", "fp16", "bf16", "int8"] = Field(
        default="auto",
        description="Precision of the model; `auto` is fp32 on the CPU and half precision on CUDA. int8 needs the CPU.",
    )
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads of the model; 0 uses every core.")
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compile the model before it is ready, with CUDA graphs on a GPU: `auto` on CUDA only. Needs torch "
        "and a C compiler; takes minutes at the first start and seconds at later ones.",
    )
    compile_clips: int = Field(
        default=16, ge=1, le=32, description="Largest batch, in clips, for which programs are compiled."
    )
    compile_seconds: float = Field(
        default=10.0,
        ge=2.0,
        le=40.0,
        allow_inf_nan=False,
        description="Longest clip, in seconds, for which programs are compiled; longer clips run without them.",
    )
    cache_dir: Annotated[Path, AfterValidator(_expand)] = Field(
        default=Path("~/.cache/emotion2vec-service"),
        description="Directory for prepared models and compiled programs.",
    )
    offline: bool = Field(
        default=False, description="Never use the network; a model that is not in the cache is an error."
    )

    # Limits of one request.
    max_body_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        le=2**40,
        description="Largest request body, in bytes; a larger one is answered with 413.",
    )
    max_files: int = Field(default=64, ge=1, le=1000, description="Most files in one batch request.")
    max_duration: float = Field(
        default=3600.0,
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
        description="Longest audio of one file, in seconds; longer audio is answered with 413.",
    )
    max_utterance_duration: float = Field(
        default=300.0,
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
        description="The same with granularity utterance or frame, where the whole file goes through the model in one "
        "piece; longer audio is answered with 413. With granularity segment only `max_duration` applies.",
    )
    timeout: Seconds = Field(
        default=60.0,
        description="Seconds from a request's arrival to its answer; a later one is replaced by 504. Clients may only "
        "shorten it.",
    )
    segment_timeout: Seconds = Field(
        default=1800.0, description="The same as `timeout` with granularity segment, until the end of the answer."
    )
    body_timeout: Seconds = Field(default=120.0, description="Seconds in which a whole request body must arrive.")
    body_idle_timeout: Seconds = Field(default=5.0, description="Seconds that an upload may pause.")
    header_timeout: Seconds = Field(default=10.0, description="Seconds in which the headers of a request must arrive.")
    max_header_bytes: int = Field(
        default=32 * 1024,
        ge=1024,
        le=2**20,
        description="Largest size of path, query and headers together, in bytes; more is answered with 431.",
    )
    max_headers: int = Field(
        default=100, ge=10, le=10_000, description="Most headers of one request; more are answered with 431."
    )

    # How many requests are accepted at the same time.
    max_in_flight: Count = Field(
        default=64, description="Requests processed at the same time; one more is answered with 429."
    )
    max_segment_requests: Count = Field(
        default=8,
        description="How many of them may have granularity segment, which takes long; one more is answered with 429. "
        "One of `max_in_flight` always stays free for other requests, unless that is 1.",
    )
    max_queue_requests: Count = Field(
        default=256, description="Clips that may wait for the model; one more is answered with 429."
    )
    max_queue_seconds: float = Field(
        default=1800.0,
        ge=0.1,
        le=10_000_000,
        allow_inf_nan=False,
        description="Seconds of audio that may wait for the model; more is answered with 429. Bounds the memory of the "
        "queue.",
    )
    decode_threads: int = Field(
        default=2, ge=1, le=256, description="Threads that decode uploads and build large answers."
    )

    # Streams of live audio.
    max_streams: Count = Field(
        default=64, description="Streams of live audio open at the same time; one more is answered with 429."
    )
    stream_idle_timeout: Seconds = Field(
        default=30.0,
        description="Seconds after which a stream is closed if its client sends no audio, or does not read what it is "
        "sent.",
    )
    max_stream_duration: Seconds = Field(
        default=14_400.0, description="Seconds that a stream may last, and seconds of audio that it may carry."
    )

    # The cache of answers.
    answer_cache_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        le=2**40,
        description="Bytes of cached answers, so that a repeated clip is not computed again; 0 turns the cache off.",
    )

    # Health and shutdown.
    drain_timeout: Seconds = Field(
        default=30.0, description="Seconds that accepted requests have to finish at shutdown."
    )
    stuck_after: Seconds = Field(
        default=120.0,
        description="Seconds that one batch may take; then the worker counts as stuck and `/livez` fails.",
    )

    # Logs and traces.
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of log lines: readable text or JSON."
    )
    access_log: bool = Field(default=True, description="Log one line for each request, except for probes and scrapes.")
    log_file_names: bool = Field(
        default=False,
        description="Include the names of uploaded files in these lines. Names may be personal data.",
    )
    traces: bool = Field(
        default=False,
        description="Send OpenTelemetry spans with OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`. "
        "Needs the extra `[otel]`.",
    )

    @property
    def needs_key(self) -> bool:
        """Whether callers must send an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def longest_clip(self) -> float:
        """Longest file, in seconds, whose channels go through the model in one piece."""
        return min(self.max_utterance_duration, self.max_duration)

    @property
    def segment_permits(self) -> int:
        """Requests with granularity segment processed at the same time; one permit is left for other requests."""
        return min(self.max_segment_requests, max(1, self.max_in_flight - 1))

    @model_validator(mode="after")
    def _queue_holds_one_clip(self) -> Self:
        """Every allowed clip must fit into an empty queue; otherwise it would be refused for ever."""
        if self.max_queue_seconds < self.longest_clip:
            raise ValueError(
                "max_queue_seconds must be at least max_utterance_duration or max_duration, whichever is smaller"
            )
        return self
