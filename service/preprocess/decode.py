"""Decode an upload: any bytes in, a bounded waveform or a specific error out.

Files too long to be held as a whole are read by `service.preprocess.reader`.
"""

from __future__ import annotations

from contextlib import closing

from service.preprocess.byte_source import ByteSource, Data
from service.preprocess.decoding_limits import Limits
from service.preprocess.open import open_sound
from service.results import Waveform


def decode(data: Data, *, max_duration: float) -> Waveform:
    """Decode audio, holding every limit while decoding.

    Args:
        data: the file's bytes, or a seekable binary file, which stays open.
        max_duration: the longest audio taken, in seconds.

    Returns:
        float32 samples of shape (channel, time) at the file's own rate, integers scaled to [-1, 1). The array may be a
        transposed view.

    Raises:
        NotDecodable: not audio in a supported format, no audio stream, or rate and channels out of bounds.
        AudioEmpty: no bytes or no samples.
        AudioTooLong: more seconds, or more samples over all channels, than are taken.
        AudioTruncated: the audio is damaged, or ends before the length that its header declares.
        ServiceError: the upload cannot be read back or no decoder can be started; not the client's fault.
    """
    source = ByteSource(data)
    try:
        with closing(open_sound(source, Limits(max_duration, whole=True))) as sound:
            return Waveform(sound.read_all(), sound.sampling_rate)
    finally:
        # Whatever a decoder made of a file that could not be read, this comes first.
        source.check()
