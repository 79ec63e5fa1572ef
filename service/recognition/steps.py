"""The two steps around the model, as plain functions: an upload to clips, and outputs to a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from service.errors import AudioTooLong
from service.preprocess.bandwidth import is_narrow
from service.preprocess.clips import make_clips
from service.preprocess.decode import decode
from service.recognition.options import Options
from service.recognition.scores import recognition
from service.results import Clip, ClipOutput, ModelInfo, Recognition


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded file: the clips to score, and what it was.

    `duration` is in seconds, `sampling_rate` in Hz; `narrow_band` says whether nothing is heard above the band of
    telephones.
    """

    clips: tuple[Clip, ...]
    duration: float
    sampling_rate: int
    channels: int
    narrow_band: bool

    @property
    def seconds(self) -> float:
        """Audio to score, over all clips."""
        return sum(clip.duration for clip in self.clips)


def decode_clips(file: BinaryIO, options: Options, max_duration: float, segmented: float | None = None) -> Decoded:
    """Decode a file and make the clips asked for.

    Args:
        file: the upload.
        options: what was asked for.
        max_duration: seconds that the file may last.
        segmented: seconds that it might last with granularity segment, to be told where it lasts too long.

    Raises:
        AudioError: if the audio is not usable.
        InvalidOptions: if an option does not fit it.
    """
    try:
        waveform = decode(file, max_duration=max_duration)
    except AudioTooLong as error:
        if segmented is None or segmented <= max_duration:
            raise
        raise AudioTooLong(f"{error.detail} With granularity=segment it may last {segmented:g} s.") from None
    clips = make_clips(
        waveform,
        channels=options.channels,
        start=options.start,
        end=options.end,
        trim=options.trim,
        frame_embeddings=options.embedding == "frame",
    )
    narrow = is_narrow(waveform.samples, waveform.sampling_rate)
    return Decoded(tuple(clips), waveform.duration, waveform.sampling_rate, waveform.channels, narrow)


def score_outputs(
    outputs: Sequence[ClipOutput], model: ModelInfo, options: Options, labels: tuple[int, ...] | None
) -> list[Recognition]:
    """Score what the model found in the clips of one file.

    Args:
        outputs: one for each clip.
        model: the model that answered.
        options: as they were asked for.
        labels: indices of the labels that `options` name, None for all.

    Raises:
        InferenceFailed: if an output is not finite.
    """
    return [
        recognition(
            output,
            model,
            granularity=options.granularity,
            embedding=options.embedding,
            labels=labels,
            window=options.window,
            hop=options.hop,
            offset=options.start or 0.0,
        )
        for output in outputs
    ]
