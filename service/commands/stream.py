"""`emotion2vec-service stream`: send a file or the microphone to a service as live audio, and print its events."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, BinaryIO

from service.commands import Commands
from service.errors import SettingsInvalid
from service.settings.sources import CLIENT_KEY_VARIABLE

if TYPE_CHECKING:
    from emotion2vec_client import Stream, StreamOptions

    from service.commands.audio_input import AudioInput

_URL = "http://127.0.0.1:8000"


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "stream", help="send a file or the microphone to a service as live audio", allow_abbrev=False
    )
    parser.add_argument(
        "source",
        metavar="FILE|mic",
        help="a file, `-` for one on standard input, or `mic` for the microphone (extra [mic])",
    )
    parser.add_argument(
        "--url",
        default=_URL,
        help=f"address of the service [{_URL}]; {CLIENT_KEY_VARIABLE} contains its API key, if it needs one",
    )
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of windows [3]")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="time from one window to the next [1]")
    parser.add_argument("--channels", type=_channels, metavar="mix|split|INDEX", help="channels to recognise [mix]")
    parser.add_argument(
        "--labels", type=lambda names: names.split(","), metavar="NAME,…", help="score only these labels"
    )
    parser.add_argument("--label-language", choices=("en", "zh", "native"), help="language of the labels [en]")
    parser.add_argument("--trim", action="store_true", default=None, help="score only what is loud enough")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="send a file at the speed at which it plays, and skip windows that are late",
    )
    parser.add_argument("--json", action="store_true", help="print one event per line, as the service sends them")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Stream until the file ends or the microphone is interrupted; the status is 1 if the stream failed.

    Raises:
        SetupError: if there is no microphone.
        InvalidRequest: if the file is not usable.
    """
    import asyncio

    from emotion2vec_client import RequestFailed

    from service.folders.finding import path_argument, text_of
    from service.folders.pipes import open_seekable

    path = path_argument(options.source)
    try:
        # Not on the event loop, since Ctrl+C must end the command while a pipe brings nothing.
        with nullcontext() if options.source == "mic" else open_seekable(path) as file:
            asyncio.run(_stream(options, file, os.environ.get(CLIENT_KEY_VARIABLE)))
    except RequestFailed as failure:
        print(f"emotion2vec-service: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"emotion2vec-service: {text_of(path)}: {error.strerror or error}", file=sys.stderr)
        return 1
    except ValueError as error:
        raise SettingsInvalid(str(error)) from None
    return 0


async def _stream(options: argparse.Namespace, file: BinaryIO | None, key: str | None) -> None:
    import asyncio

    import orjson
    from emotion2vec_client import open_stream

    from service.commands.audio_input import file_input, microphone_input
    from service.commands.printing import print_event, print_json

    live = options.realtime or file is None
    stream_options: StreamOptions = {
        "window": options.window,
        "hop": options.hop,
        "select": options.channels,
        "labels": options.labels,
        "label_language": options.label_language,
        "trim": options.trim,
        "late": "skip" if live else "wait",
    }
    source = microphone_input() if file is None else file_input(file, options.source, realtime=options.realtime)
    try:
        async with (
            source as audio,
            open_stream(
                options.url,
                sampling_rate=audio.sampling_rate,
                encoding=audio.encoding,
                channels=audio.channels,
                api_key=key,
                **stream_options,
            ) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(_send(stream, audio))
            async for event in stream:
                if options.json:
                    print_json(orjson.dumps(event))
                else:
                    print_event(event)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _send(stream: Stream, audio: AudioInput) -> None:
    from emotion2vec_client import Disconnected

    # If the stream ends early, reading its events reports the reason.
    with suppress(Disconnected):
        async for piece in audio.pieces:
            await stream.send(piece)
        await stream.end()


def _channels(text: str) -> str | int:
    if text in ("mix", "split"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError("must be mix, split, or the index of one channel, counted from 0")
