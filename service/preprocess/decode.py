"""Decode a whole upload into memory, within limits.

Recordings that are too long for that are decoded block by block: see `service.preprocess.reader`.
"""

from __future__ import annotations

from contextlib import closing

from service.preprocess.byte_source import ByteSource, Data
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.open import open_audio_file
from service.results import Waveform


def decode(data: Data, *, max_duration: float) -> Waveform:
    """Decode audio; every limit is enforced while decoding.

    Args:
        data: the file's bytes, or a seekable binary file, which stays open.
        max_duration: the longest audio accepted, in seconds.

    Returns:
        At least one float32 sample, of shape (channel, time) at the file's own rate, integers scaled to [-1, 1). The
        array may be a transposed view.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate or channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: longer than `max_duration`, or more samples over all channels than fit into memory.
        AudioTruncated: the audio is damaged, or ends before the length that its header declares.
        ServiceError: the upload cannot be read back or no decoder can be started; not the client's fault.
    """
    source = ByteSource(data)
    try:
        with closing(open_audio_file(source, DecodingLimits(max_duration, whole=True))) as file:
            return Waveform(file.read_all(), file.sampling_rate)
    finally:
        # If the upload itself could not be read, that is the error, whatever the decoder made of it.
        source.check()
