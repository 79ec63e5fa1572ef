"""Recognition in this process, file by file, without a server: what `emotion2vec-service recognize` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from service.api.schemas import FileResult, SegmentedResult
from service.recognition.answers import file_result
from service.recognition.options import Options
from service.recognition.recording import KeptSegments, Recording, Tally
from service.recognition.scores import resolve_labels
from service.recognition.steps import decode_clips, score_outputs
from service.results import BatchOutput, Clip, ModelInfo


class Runner(Protocol):
    """What of a `service.inference.backend.Backend` is needed here."""

    @property
    def info(self) -> ModelInfo:
        """Which model answers."""

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        """What the model finds in the clips."""


def recognize_file(
    backend: Runner, path: Path, options: Options, *, max_duration: float, longest_clip: float | None = None
) -> FileResult | SegmentedResult:
    """Recognise one audio file; the result is that of `POST /recognize` without `id` and `model`.

    Args:
        backend: a loaded model.
        path: the file.
        options: as a client of the service would give them.
        max_duration: seconds of audio that the file may have.
        longest_clip: seconds that it may have where all of it goes through the model in one piece, which it does with
            any granularity but segment; None for no other limit.

    Raises:
        OSError: if the file cannot be read.
        InvalidRequest: if it is not usable audio, or an option does not fit it.
    """
    labels = None if options.labels is None else resolve_labels(options.labels, backend.info)
    with path.open("rb") as file:
        if options.granularity == "segment":
            return _recognize_segments(backend, file, options, labels, max_duration)
        decoded = decode_clips(file, options, longest_clip or max_duration, max_duration)
    outputs = [backend.run([clip]).clips[0] for clip in decoded.clips]
    return file_result(decoded, score_outputs(outputs, backend.info, options, labels), options)


def _recognize_segments(
    backend: Runner, file: BinaryIO, options: Options, labels: tuple[int, ...] | None, max_duration: float
) -> SegmentedResult:
    recording = Recording(file, options, max_duration)
    try:
        tally, kept = Tally(recording, options), KeptSegments()
        for piece in recording:
            outputs = backend.run([recording.clip(piece)]).clips
            segment = tally.add(piece, score_outputs(outputs, backend.info, options, labels)[0])
            kept.put(segment, segment)
        return tally.result(kept)
    finally:
        recording.close()
