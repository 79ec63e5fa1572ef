"""Decode an upload: any bytes in, a bounded waveform or a specific error out.

libsndfile reads its formats in this process, FFmpeg reads all others in a process of its own. The format is told by the
content alone; no name, extension or content type of the client is used.
"""

from __future__ import annotations

from service.errors import AudioEmpty, AudioTruncated
from service.preprocess import libsndfile, sandbox
from service.preprocess.container import read_header
from service.preprocess.source import ByteSource, Data
from service.results import Waveform


def decode(data: Data, *, max_duration: float) -> Waveform:
    """Decode audio, holding every limit while decoding.

    Formats that declare no length (ADTS, AMR, GSM, MPEG-TS, MP3 without a Xing tag, what was written into a pipe) end
    where they end.

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
        waveform = _decode(source, max_duration)
    finally:
        # Whatever a decoder made of a file that could not be read, this comes first.
        source.check()
    return waveform


def _decode(source: ByteSource, max_duration: float) -> Waveform:
    source.check()
    if source.size == 0:
        raise AudioEmpty("There are no bytes.")
    header = read_header(source)
    if header.truncated:
        raise AudioTruncated("The file ends before the end that its own header declares.")
    if header.kind in libsndfile.KINDS and (waveform := libsndfile.decode(source, max_duration)):
        return waveform
    return sandbox.decode(source, max_duration)
