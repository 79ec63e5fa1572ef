"""`emotion2vec-service serve`: answer HTTP requests."""

from __future__ import annotations

import argparse
import logging
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from service.commands import Commands
from service.commands.open_model import find_model, start_opening
from service.data import EXAMPLES
from service.inference.engine_limits import EngineLimits
from service.settings.settings import Settings
from service.settings.sources import add_flags, describe_settings, flags_of, load_settings_and_sources

if TYPE_CHECKING:
    from service.results import ModelInfo

logger = logging.getLogger(__name__)


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("serve", help="answer HTTP requests", allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="a YAML file with settings")
    parser.add_argument(
        "--check", action="store_true", help="check the settings, print them and where each came from, and exit"
    )
    add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal says to stop, or print the settings.

    Raises:
        SetupError: if this process can never serve the model.
    """
    settings, sources = load_settings_and_sources(options.config, **flags_of(options))
    if options.check:
        from service.api.middleware.api_keys import ApiKeys

        ApiKeys.of(settings)  # its file is part of the settings
        print(*describe_settings(settings, sources), sep="\n")
        return 0
    from service.observability.logs import configure_logging

    configure_logging(settings)
    began = time.monotonic()
    open_backend = start_opening(find_model(settings), settings)
    # While the model is opened.
    from prometheus_client import CollectorRegistry

    from service.api.app import create_app
    from service.api.server.server import Server
    from service.inference.engine import Engine
    from service.observability.metrics import Metrics
    from service.observability.telemetry import Telemetry
    from service.observability.tracing import exporting

    metrics = Metrics(CollectorRegistry())
    engine = Engine(open_backend, engine_limits(settings), Telemetry(metrics))

    def announce(url: str) -> None:
        model = engine.model
        if model is not None:
            through = "" if settings.uds is None else f" through {settings.uds}"
            print(f"Ready after {time.monotonic() - began:.1f} s: {_describe(model)} at {url}{through}", flush=True)
            options = _socket_option(settings) + _key_option(settings)
            print(f"Try it:\n  curl {options}-F file=@{_example()} {url}/recognize", flush=True)
        warn_of_long_clips(settings, engine.expected(settings.longest_clip))

    with exporting(settings.traces) as tracer_provider:
        server = Server(create_app(engine, settings, metrics, tracer_provider), engine, settings, announce)
        server.run()
    if server.setup_error is not None:
        raise server.setup_error
    return 0 if server.started else 1


def engine_limits(settings: Settings) -> EngineLimits:
    """The engine's part of the settings."""
    return EngineLimits(
        max_requests=settings.max_in_flight,
        max_recordings=settings.segment_permits,
        max_streams=settings.max_streams,
        caller_share=settings.caller_share,
        max_queue_clips=settings.max_queue_requests,
        max_queue_seconds=settings.max_queue_seconds,
        stuck_after=settings.stuck_after,
    )


def warn_of_long_clips(settings: Settings, expected: float | None) -> None:
    """Log a warning if the longest clip, which takes `expected` seconds, cannot be answered in time."""
    if expected is not None and expected > settings.timeout:
        logger.warning(
            "a clip of %.0f s, the longest that max_utterance_duration allows, takes about %.0f s with this model on "
            "this machine and is answered with 504 after %.0f s (timeout); lower max_utterance_duration",
            settings.longest_clip,
            expected,
            settings.timeout,
        )


def _describe(model: ModelInfo) -> str:
    text = f"{model.id} (revision {model.revision}) in {model.dtype} on {model.device} with {model.backend}"
    return f"{text}, FOR DEMONSTRATION ONLY" if model.demonstration else text


def _key_option(settings: Settings) -> str:
    """What a caller must add where keys are asked for; the key itself is not for terminals and logs."""
    return "-H 'X-API-Key: YOUR-KEY' " if settings.needs_key else ""


def _socket_option(settings: Settings) -> str:
    return "" if settings.uds is None else f"--unix-socket {shlex.quote(str(settings.uds))} "


def _example() -> Path:
    """The path of a bundled clip, relative to the working directory where that is shorter."""
    clip = EXAMPLES / "happy.wav"
    return clip.relative_to(Path.cwd()) if clip.is_relative_to(Path.cwd()) else clip
