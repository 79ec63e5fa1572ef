"""`emotion2vec-service stream`: send a file or a microphone to a service as live audio, and print what it hears."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from service.commands import Commands
from service.errors import SettingsInvalid
from service.settings.sources import CLIENT_KEY_VARIABLE

if TYPE_CHECKING:
    from emotion2vec_client import Stream, StreamOptions

    from service.commands.audio_input import Sound

_URL = "http://127.0.0.1:8000"
_BAR = 30


def add_parser(commands: Commands) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "stream", help="send a file or a microphone to a service as live audio", allow_abbrev=False
    )
    parser.add_argument("source", metavar="FILE|mic", help="a file, or `mic` for the microphone (extra [mic])")
    parser.add_argument(
        "--url",
        default=_URL,
        help=f"where the service is [{_URL}]; its key, if it asks for one, is {CLIENT_KEY_VARIABLE}",
    )
    parser.add_argument("--window", type=float, metavar="SECONDS", help="how long windows are [3]")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="from one window to the next [1]")
    parser.add_argument("--channels", type=_channels, metavar="mix|split|INDEX", help="which of the channels [mix]")
    parser.add_argument("--labels", type=lambda names: names.split(","), metavar="NAME,…", help="only these")
    parser.add_argument("--label-language", choices=("en", "zh", "native"), help="language of the labels [en]")
    parser.add_argument("--trim", action="store_true", default=None, help="score only what is loud enough")
    parser.add_argument(
        "--realtime", action="store_true", help="send a file as fast as it plays, and leave out what comes too late"
    )
    parser.add_argument("--json", action="store_true", help="one event a line, as the service sends them")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Stream until the source ends, or somebody interrupts a microphone; the status is 1 if the stream failed.

    Raises:
        SetupError: if there is no microphone.
        InvalidRequest: if the file is not usable.
    """
    from emotion2vec_client import RequestFailed

    try:
        asyncio.run(_stream(options, os.environ.get(CLIENT_KEY_VARIABLE)))
    except RequestFailed as failure:
        print(f"emotion2vec-service: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"emotion2vec-service: {options.source}: {error.strerror or error}", file=sys.stderr)
        return 1
    except ValueError as error:
        raise SettingsInvalid(str(error)) from None
    return 0


async def _stream(options: argparse.Namespace, key: str | None) -> None:
    from emotion2vec_client import open_stream

    from service.commands.audio_input import file_sound, microphone

    live = options.realtime or options.source == "mic"
    wishes: StreamOptions = {
        "window": options.window,
        "hop": options.hop,
        "select": options.channels,
        "labels": options.labels,
        "label_language": options.label_language,
        "trim": options.trim,
        "late": "skip" if live else "wait",
    }
    source = microphone() if options.source == "mic" else file_sound(options.source, realtime=options.realtime)
    try:
        async with (
            source as sound,
            open_stream(
                options.url,
                sampling_rate=sound.sampling_rate,
                encoding=sound.encoding,
                channels=sound.channels,
                api_key=key,
                **wishes,
            ) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(_send(stream, sound))
            async for event in stream:
                _print(event, as_json=options.json)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _send(stream: Stream, sound: Sound) -> None:
    from emotion2vec_client import Disconnected

    # Why the stream is over, if it is, is told to those who read its events.
    with suppress(Disconnected):
        async for piece in sound.pieces:
            await stream.send(piece)
        await stream.end()


def _print(event: Any, *, as_json: bool) -> None:
    if as_json:
        import orjson

        print(orjson.dumps(event).decode(), flush=True)
        return
    if event["type"] == "result":
        print(f"result over {event['duration']:.1f} s")
        for overall in event.get("channels", [event]):
            where = f"channel {overall['channel']}, " if "channel" in overall else ""
            print(f"  {where}{overall['speech_seconds']:.1f} s of speech: {_label(overall)}", flush=True)
        return
    where = f"channel {event['channel']}  " if "channel" in event else ""
    times = f"{event['start']:7.1f} – {event['end']:7.1f} s"
    skipped = f"  ({event['skipped']} left out)" if event.get("skipped") else ""
    bar = "" if event["type"] == "utterance" else f" {'█' * round(_BAR * event['score'])}"
    print(f"{event['type']:<9} {times}  {where}{_label(event)}{bar}{skipped}", flush=True)


def _label(scored: Any) -> str:
    return "none" if scored["label"] is None else f"{scored['label']:<10} {scored['score']:.3f}"


def _channels(text: str) -> str | int:
    if text in ("mix", "split"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError("must be mix, split, or the index of one channel, counted from 0")
