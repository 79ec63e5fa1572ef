"""The clock of a container: where silence belongs between decoded frames.

Matroska, MP4, MPEG-TS, ASF and Ogg say when each packet is played. A recorder that pauses, loses packets or sends none
in silence leaves a gap, and a track may begin after the others. Players wait there, so the silence is part of the
file's time. WAV, AIFF, CAF, AU, FLAC, MP3, ADTS, AMR and GSM only have the samples themselves.
"""

from __future__ import annotations

import math

from av.audio.frame import AudioFrame

_LEAST_GAP = 0.2
"""Seconds. Less is no gap: encoders and decoders begin up to 0.13 s before or after the clock (priming, edit lists; WMA
at 8 kHz), recorders stamp packets some hundredths late, and pauses in speech that matter are longer."""

_LEAST_STEP = 0.01
"""Seconds by which a frame must begin after the end of the frame before. Less is rounding, or a clock that runs
slightly faster than the samples: in hours that adds up to more than `_LEAST_GAP`, but nothing is missing anywhere."""

_BOUNDS = {
    "matroska,webm": (_LEAST_GAP, math.inf),
    "mov,mp4,m4a,3gp,3g2,mj2": (_LEAST_GAP, math.inf),
    "ogg": (_LEAST_GAP, math.inf),
    # Packets of about half a second may share one timestamp.
    "asf": (1.0, math.inf),
    # The clock may be set anew anywhere, so a longer step is not a gap; ffmpeg, the program, has the same bound.
    "mpegts": (_LEAST_GAP, 10.0),
}
"""Seconds of the shortest and the longest gap, for FFmpeg's names of the formats that have a clock."""


class Clock:
    """Compares the timestamps of frames with the samples so far.

    Args:
        start: seconds at which the container begins, on its own clock; None for the first frame.
        least: seconds of the shortest gap.
        longest: seconds of the longest gap.
    """

    def __init__(self, start: float | None, least: float, longest: float) -> None:
        self._least = least
        self._longest = longest
        self._next = start  # where the next frame begins if nothing is missing
        self._late = 0.0  # by how much frames begin after the end of the samples and silence so far
        self._begun = False

    def missing(self, frame: AudioFrame) -> float:
        """Return the seconds of silence before a frame, the next one of its stream; mostly 0."""
        silence = 0.0
        # A frame without a timestamp follows the one before.
        if frame.pts is not None and frame.time_base is not None:
            stamp = float(frame.pts * frame.time_base)
            step = 0.0 if self._next is None else stamp - self._next
            self._next = stamp
            self._late += step
            gap = self._late > self._least and step > _LEAST_STEP
            if gap and self._late <= self._longest:
                silence = self._late
            if gap or self._late < -self._least or not self._begun:
                self._late = 0.0
        self._begun = True
        if self._next is not None:
            self._next += frame.samples / frame.sample_rate
        return silence


def clock_of(container: str, start: int | None) -> Clock | None:
    """Return the clock of an opened file, None for formats without one.

    Args:
        container: FFmpeg's name of the format.
        start: the earliest timestamp of all its streams in microseconds, None if unknown.
    """
    if container not in _BOUNDS:
        return None
    return Clock(None if start is None else start / 1e6, *_BOUNDS[container])
