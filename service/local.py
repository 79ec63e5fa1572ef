"""Recognition in this process, file by file, without a server: what `emotion2vec-service recognize` runs."""

from __future__ import annotations

from pathlib import Path

from service.api.answers import file_result
from service.api.options import Options
from service.api.schemas import FileResult
from service.api.steps import decode_clips, score_outputs
from service.inference.backend import Backend
from service.inference.scores import resolve_labels


def recognize_file(backend: Backend, path: Path, options: Options, *, max_duration: float) -> FileResult:
    """Recognise one audio file; the result is that of `POST /recognize` without `id` and `model`.

    Args:
        backend: a loaded model.
        path: the file.
        options: as a client of the service would give them.
        max_duration: seconds of audio that the file may have.

    Raises:
        OSError: if the file cannot be read.
        InvalidRequest: if it is not usable audio, or an option does not fit it.
    """
    labels = None if options.labels is None else resolve_labels(options.labels, backend.info)
    with path.open("rb") as file:
        decoded = decode_clips(file, options, max_duration)
    outputs = [backend.run([clip]).clips[0] for clip in decoded.clips]
    return file_result(decoded, score_outputs(outputs, backend.info, options, labels), options)
