"""Every setting of the service, as one flat dataclass; each field is documented by its description.

This module defines names, types, limits, defaults and descriptions, and imports no pydantic, which would delay the
first answer of the command line. `service.settings.validation` checks values against these definitions with pydantic;
`service.settings.sources` reads the values from files, the environment and flags.
"""

# Annotations are evaluated, since the validation needs the types: so no `from __future__ import annotations`.

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import SecretStr

ENV_PREFIX = "SER_"


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A field with its default, its description, and its limits by the names that `pydantic.Field` has for them."""
    return field(default=default, metadata={"description": description, "limits": limits})


def seconds(default: float, description: str) -> Any:
    """A field for a time limit in seconds, at most a day."""
    return setting(default, description, gt=0, le=86_400, allow_inf_nan=False)


def count(default: int, description: str) -> Any:
    """A field for a number of things of which there must be one."""
    return setting(default, description, ge=1, le=1_000_000)


def expand(path: Path) -> Path:
    """Replace `~` by the home directory.

    Raises:
        ValueError: if the home directory is not known, as in some containers.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("the home directory is not known; use an absolute path") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings after all sources have been merged; immutable.

    Raises:
        ValueError: if they contradict each other, or `~` in a path cannot be replaced; limits of single values are not
            checked.
    """

    # Where to listen.
    host: str = setting("127.0.0.1", "Address to listen on.", min_length=1, max_length=255)
    port: int = setting(8000, "TCP port to listen on; 0 selects any free port.", ge=0, le=65_535)
    uds: Path | None = setting(
        None,
        "Path of a Unix domain socket to listen on, in place of `host` and `port`. The permissions of its directory "
        "decide who may connect.",
    )
    root_path: str = setting(
        "",
        "Path prefix under which a reverse proxy serves this service, such as `/emotion`.",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
    )
    page: bool = setting(True, "Serve the web page at `/`.")
    docs: bool = setting(True, "Serve `/docs` and `/openapi.json`.")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(
        (),
        "Addresses or networks of reverse proxies, separated by commas, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are trusted.",
        max_length=100,
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "Names and addresses under which the service is reached, without port, separated by commas; "
        "`*.example.com` are the names below it, `*` is any. Requests with another `Host` are answered with 403. Empty "
        "means the names of this machine and all addresses if `host` is a loopback address, otherwise any.",
        max_length=100,
    )

    # Who may call, and how often.
    api_keys: tuple["SecretStr", ...] = setting(
        (),
        "API keys, separated by commas; callers must send one of them. Without keys, everybody may call. "
        "There is no flag, because other users of the machine could read it.",
        max_length=1000,
    )
    api_keys_file: Path | None = setting(None, "File with more API keys, one on each line; read at start.")
    public_metrics: bool = setting(False, "Serve `/metrics` without a key even if keys are configured.")
    public_pages: bool = setting(
        True, "Serve `/` and `/docs` without a key even if keys are configured, because browsers send none."
    )
    rate_limit: int = setting(
        0,
        "Requests per minute, on average, for each key, or for each address if there are no keys; more are "
        "answered with 429. 0 means no limit.",
        ge=0,
        le=1_000_000,
    )
    rate_burst: int = count(10, "Requests that each key or address may make at once, within `rate_limit`.")
    cors_origins: tuple[str, ...] = setting(
        (),
        "Origins of web pages that may call this service from a browser, such as "
        "`https://app.example.com`, separated by commas; also of apps and extensions, such as `capacitor://localhost`.",
        max_length=100,
    )

    # The model, and how it is run.
    model: str = setting(
        "tiny",
        "The model: `tiny` (embedded, for demonstration), a hub id such as "
        "`iic/emotion2vec_plus_large`, or a local directory in hub layout.",
        min_length=1,
        max_length=1024,
    )
    backend: Literal["auto", "onnx", "torch"] = setting(
        "auto", "Library that runs the model; `auto` is torch on CUDA and ONNX Runtime on the CPU."
    )
    device: str = setting(
        "auto",
        "Device that runs the model: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is CUDA if torch finds it.",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
    )
    dtype: Literal["auto", "fp32", "fp16", "bf16", "int8"] = setting(
        "auto", "Precision of the model; `auto` is fp32 on the CPU and half precision on CUDA. int8 needs the CPU."
    )
    threads: int = setting(
        0, "CPU threads of the model; 0 uses every core that the process may use, within its CPU quota.", ge=0, le=1024
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto",
        "Compile the model before it is ready, with CUDA graphs on a GPU: `auto` on CUDA only. Needs torch "
        "and a C compiler; takes minutes at the first start and seconds at later ones.",
    )
    compile_clips: int = setting(16, "Largest batch, in clips, for which programs are compiled.", ge=1, le=32)
    compile_seconds: float = setting(
        10.0,
        "Longest clip, in seconds, for which programs are compiled; longer clips run without them.",
        ge=2.0,
        le=40.0,
        allow_inf_nan=False,
    )
    cache_dir: Path = setting(
        Path("~/.cache/emotion2vec-service"), "Directory for prepared models and compiled programs."
    )
    offline: bool = setting(False, "Never use the network; a model that is not in the cache is an error.")

    # Limits of one request.
    max_body_bytes: int = setting(
        256 * 1024 * 1024, "Largest request body, in bytes; a larger one is answered with 413.", ge=1024, le=2**40
    )
    max_files: int = setting(64, "Most files in one batch request.", ge=1, le=1000)
    max_duration: float = setting(
        3600.0,
        "Longest audio of one file, in seconds; longer audio is answered with 413.",
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
    )
    max_utterance_duration: float = setting(
        300.0,
        "The same with granularity utterance or frame, where the whole file goes through the model in one "
        "piece; longer audio is answered with 413. With granularity segment only `max_duration` applies.",
        ge=0.1,
        le=86_400,
        allow_inf_nan=False,
    )
    timeout: float = seconds(
        60.0,
        "Seconds from a request's arrival to its answer; a later one is replaced by 504. Clients may only shorten it.",
    )
    segment_timeout: float = seconds(
        1800.0, "The same as `timeout` with granularity segment, until the end of the answer."
    )
    body_timeout: float = seconds(120.0, "Seconds in which a whole request body must arrive.")
    body_idle_timeout: float = seconds(5.0, "Seconds that an upload may pause.")
    min_body_rate: int = setting(
        500,
        "Bytes per second at which a request body must arrive on average, after `body_idle_timeout`; a slower one "
        "is answered with 408. 0 means no limit.",
        ge=0,
        le=1_000_000,
    )
    header_timeout: float = seconds(10.0, "Seconds in which the headers of a request must arrive.")
    keep_alive_timeout: int = setting(
        75,
        "Seconds after which a connection without a request is closed; longer than a reverse proxy or load "
        "balancer keeps its connections, or it may send a request while the connection is being closed.",
        ge=1,
        le=86_400,
    )
    max_header_bytes: int = setting(
        32 * 1024,
        "Largest size of path, query and headers together, in bytes; more is answered with 431.",
        ge=1024,
        le=2**20,
    )
    max_headers: int = setting(100, "Most headers of one request; more are answered with 431.", ge=10, le=10_000)

    # How many requests are accepted at the same time.
    max_in_flight: int = count(128, "Requests processed at the same time; one more is answered with 429.")
    max_segment_requests: int = count(
        8,
        "How many of them may have granularity segment, which takes long; one more is answered with 429. "
        "One of `max_in_flight` always stays free for other requests, unless that is 1.",
    )
    caller_share: float = setting(
        0.5,
        "Share of `max_in_flight`, `max_segment_requests` and `max_streams` that one key, or one address if there "
        "are no keys, may hold; more is answered with 429. It is less if other callers hold many, so that some stay "
        "free. 1 means no limit: set it, or `trusted_proxies`, behind a proxy if there are no keys.",
        gt=0,
        le=1,
        allow_inf_nan=False,
    )
    max_queue_requests: int = count(256, "Clips that may wait for the model; one more is answered with 429.")
    max_queue_seconds: float = setting(
        1800.0,
        "Seconds of audio that may wait for the model; more is answered with 429. Bounds the memory of the queue.",
        ge=0.1,
        le=10_000_000,
        allow_inf_nan=False,
    )
    decode_threads: int = setting(2, "Threads that decode uploads and build large answers.", ge=1, le=256)

    # Streams of live audio.
    max_streams: int = count(128, "Streams of live audio open at the same time; one more is answered with 429.")
    stream_idle_timeout: float = seconds(
        30.0, "Seconds after which a stream is closed if its client sends no audio, or does not read what it is sent."
    )
    min_stream_speed: float = setting(
        0.05,
        "Seconds of audio that a stream must bring per second on average, after `stream_idle_timeout`; a slower one "
        "is closed. 0 means no limit.",
        ge=0,
        le=1,
        allow_inf_nan=False,
    )
    max_stream_duration: float = seconds(
        14_400.0, "Seconds that a stream may last, and seconds of audio that it may carry."
    )

    # The cache of answers.
    answer_cache_bytes: int = setting(
        16 * 1024 * 1024,
        "Bytes of cached answers, so that a repeated clip is not computed again; 0 turns the cache off.",
        ge=0,
        le=2**40,
    )

    # Health and shutdown.
    drain_timeout: float = seconds(30.0, "Seconds that accepted requests have to finish at shutdown.")
    stuck_after: float = seconds(
        120.0,
        "Seconds that one batch may take, or more for a long clip at the measured speed; then the worker counts as "
        "stuck and `/livez` fails.",
    )

    # Logs and traces.
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is logged.")
    log_format: Literal["text", "json"] = setting("text", "Format of log lines: readable text or JSON.")
    access_log: bool = setting(True, "Log one line for each request, except for probes and scrapes.")
    log_file_names: bool = setting(
        False, "Include the names of uploaded files in these lines. Names may be personal data."
    )
    traces: bool = setting(
        False,
        "Send OpenTelemetry spans with OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`. Needs the extra `[otel]`.",
    )

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "cache_dir", expand(self.cache_dir))
        except ValueError as error:
            # The default stays as it is, since the embedded model needs no cache; whatever needs it reports the error.
            if self.cache_dir != SETTINGS["cache_dir"].default:
                raise ValueError(f"cache_dir: {error}") from None
        if self.max_queue_seconds < self.longest_clip:  # such a clip would be refused for ever
            raise ValueError(
                "max_queue_seconds must be at least max_utterance_duration or max_duration, whichever is smaller"
            )

    @property
    def needs_key(self) -> bool:
        """Whether callers must send an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.uds is not None:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def longest_clip(self) -> float:
        """Longest file, in seconds, whose channels go through the model in one piece."""
        return min(self.max_utterance_duration, self.max_duration)

    @property
    def segment_permits(self) -> int:
        """Requests with granularity segment processed at the same time; one permit is left for other requests."""
        return min(self.max_segment_requests, max(1, self.max_in_flight - 1))


SETTINGS: Mapping[str, Field[Any]] = MappingProxyType({each.name: each for each in fields(Settings)})
"""The definition of every setting by its name."""
