"""Segments as text for people: a line for each, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator

from service.recognition.result_types import Overall, SegmentedResult


def segment_lines(result: SegmentedResult) -> Iterator[str]:
    """Lines with times, channel, label and score of each segment in order of its end, then of all together."""
    channels = result.get("channels", [])
    segments = [segment for channel in channels for segment in channel.get("segments", [])]
    for segment in sorted(segments or result.get("segments", []), key=lambda segment: segment["end"]):
        where = f"channel {segment['channel']}: " if "channel" in segment else ""
        times = f"{_clock(segment['start'])} – {_clock(segment['end'])}"
        yield f"  {times}  {where}{segment['label']} {segment['score']:.3f}"
    for channel in channels:
        yield f"  channel {channel['channel']}, {channel['speech_seconds']:.1f} s of speech: {_label(channel)}"
    if not channels:
        overall: Overall = {"label": result.get("label"), "score": result.get("score"), "scores": []}
        yield f"  all {result['audio'].get('speech_seconds', 0.0):.1f} s of speech: {_label(overall)}"


def _label(overall: Overall) -> str:
    return "none" if overall["score"] is None else f"{overall['label']} {overall['score']:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:3.0f}:{rest:04.1f}"
