"""Prints results of files and events of streams as text for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from service.recognition.options import Options
    from service.recognition.result_types import FileResult, SegmentedResult

_BAR_WIDTH = 30


def print_json(document: bytes) -> None:
    """Print a JSON document as a line in UTF-8, whatever the encoding of the terminal is."""
    sys.stdout.buffer.write(document + b"\n")
    sys.stdout.buffer.flush()


def print_result(name: str, result: Mapping[str, object], options: Options) -> None:
    """Print the result of one file, recognised with these options."""
    file_result = cast("FileResult", result)
    audio = file_result["audio"]
    seconds = f"{audio['duration']:.2f} s"
    notes = length_notes(truncated=audio.get("truncated", False), unread_bytes=audio.get("unread_bytes", 0))
    print(f"{name} ({'; '.join([seconds + _taken(audio), *notes])})")
    if options.granularity == "segment":
        print(*_segment_lines(cast("SegmentedResult", result)), sep="\n")
        return
    for channel in file_result.get("channels", []):
        print(f"  channel {channel['channel']}: {_scored(channel)}")
    for row in sorted(file_result.get("scores", []), key=lambda row: -row["score"]):
        print(f"  {_scored(row, width=10)} {_bar(float(row['score']))}")


def length_notes(*, truncated: bool, unread_bytes: int) -> list[str]:
    """What to say of a file that ends before its declared end, or of bytes behind its audio that were not decoded."""
    notes = ["the file ends early"] if truncated else []
    return notes + ([f"{unread_bytes} bytes behind the audio were not read"] if unread_bytes else [])


def print_event(event: Any) -> None:
    """Print an event of a stream, as the service sends it."""
    if event["type"] == "result":
        print(f"result over {event['duration']:.1f} s{_taken(event)}")
        for overall in event.get("channels", [event]):
            channel = f"channel {overall['channel']}, " if "channel" in overall else ""
            print(f"  {channel}{_overall(overall['speech_seconds'], overall, width=10)}", flush=True)
        return
    channel = f"channel {event['channel']}  " if "channel" in event else ""
    times = f"{event['start']:7.1f} {_or_ascii('–', '-')} {event['end']:7.1f} s"
    skipped = f"  ({event['skipped']} left out)" if event.get("skipped") else ""
    bar = "" if event["type"] == "utterance" else f" {_bar(event['score'])}"
    print(f"{event['type']:<9} {times}  {channel}{_scored(event, width=10)}{bar}{skipped}", flush=True)


def _segment_lines(result: SegmentedResult) -> Iterator[str]:
    """A line for each segment, in the order of their ends, and one for each channel or for all segments together."""
    channels = result.get("channels", [])
    segments = [segment for channel in channels for segment in channel.get("segments", [])]
    for segment in sorted(segments or result.get("segments", []), key=lambda segment: segment["end"]):
        channel_name = f"channel {segment['channel']}: " if "channel" in segment else ""
        times = f"{_clock(segment['start'])} {_or_ascii('–', '-')} {_clock(segment['end'])}"
        yield f"  {times}  {channel_name}{_scored(segment)}"
    for channel in channels:
        yield f"  channel {channel['channel']}, {_overall(channel['speech_seconds'], channel)}"
    if not channels:
        yield f"  all {_overall(result['audio'].get('speech_seconds', 0.0), result)}"


def _overall(speech_seconds: float, scored: Mapping[str, Any], width: int = 0) -> str:
    return f"{speech_seconds:.1f} s of speech: {_scored(scored, width)}"


def _scored(scored: Mapping[str, Any], width: int = 0) -> str:
    """The label and the score, the label padded to `width`; `none` if there was no speech to score."""
    if scored.get("label") is None:
        return "none"
    return f"{scored['label']:<{width}} {scored['score']:.3f}"


def _taken(values: Mapping[str, Any]) -> str:
    """The channel that was taken because the mean of all channels cancels out, as a note; empty otherwise."""
    if "taken_channel" not in values:
        return ""
    return f", channel {values['taken_channel']} because the mean of all cancels out"


def _bar(score: float) -> str:
    return _or_ascii("█", "#") * round(_BAR_WIDTH * score)


def _or_ascii(character: str, ascii_character: str) -> str:
    """The character, or the other one if the terminal's encoding does not have it."""
    try:
        character.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return ascii_character
    return character


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:3.0f}:{rest:04.1f}"
