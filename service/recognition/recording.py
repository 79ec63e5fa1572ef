"""Read a long recording in steps, each in a thread, and cut it into utterances."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from threading import Lock
from time import perf_counter
from typing import BinaryIO

from service.preprocess.reader import open_reader
from service.preprocess.segmentation.file_utterances import FileCut
from service.recognition.concurrency import in_pool
from service.recognition.options import Options
from service.results import ChannelUtterance, Clip


class Recording:
    """A file that is read and cut into utterances in steps, with memory that does not depend on its length.

    Args:
        file: the audio file, which must stay open.
        options: channels and interval of the file.
        max_duration: seconds that it may last.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        unread_bytes: behind the audio, which are not decoded.

    Raises:
        AudioError: if the beginning of the audio is not usable.
        InvalidOptions: if an option does not match it.
        QueueFull: if too many files are being decoded.
    """

    def __init__(self, file: BinaryIO, options: Options, max_duration: float) -> None:
        self._reader = open_reader(file, max_duration=max_duration)
        self.sampling_rate = self._reader.sampling_rate
        self.channels = self._reader.channels
        self.unread_bytes = self._reader.unread_bytes
        self._trim = options.trim
        try:
            self._cut = FileCut(self._reader, channels=options.channels, start=options.start, end=options.end)
        except BaseException:
            self._reader.close()
            raise
        self._steps = self._cut.steps()

    @property
    def duration(self) -> float:
        """Seconds that have been read so far."""
        return self._cut.duration

    @property
    def narrow_band(self) -> bool:
        """Whether the audio read so far has no sound above the telephone band."""
        return self._cut.narrow_band

    @property
    def truncated(self) -> bool:
        """Whether the file ends before its declared end; after the last step."""
        return self._reader.truncated

    @property
    def taken_channel(self) -> int | None:
        """The channel that is cut because the mean of all cancels out; None if not, or not known yet."""
        return self._cut.taken_channel

    def step(self) -> Sequence[ChannelUtterance] | None:
        """Read some more seconds; returns the utterances that are complete now, or None at the end of the file.

        Raises:
            AudioError: if the audio is not usable.
            InvalidOptions: if the file ends before the option `start`.
        """
        return next(self._steps, None)

    def clip(self, piece: ChannelUtterance) -> Clip:
        """The clip of an utterance."""
        return Clip(piece.utterance.samples, self.sampling_rate, self._trim)

    def close(self) -> None:
        """Close the decoder; not while a step is running."""
        self._reader.close()


class RecordingReader:
    """Opens a recording and runs its steps in threads, and closes it when no step is running.

    A thread cannot be stopped, so the step of a cancelled caller runs to its end, and the file stays open until then.

    Args:
        threads: for opening, steps and closing.
        file: the audio file, which is closed.
        options: channels and interval of the file.
        max_duration: seconds that it may last.

    Attributes:
        seconds: duration of all steps, including the wait for a thread.
    """

    def __init__(self, threads: Executor, file: BinaryIO, options: Options, max_duration: float) -> None:
        self.seconds = 0.0
        self._threads = threads
        self._file = file
        self._options = options
        self._max_duration = max_duration
        self._recording: Recording | None = None
        self._running = self._closed = False
        self._lock = Lock()

    @property
    def recording(self) -> Recording:
        """The recording, which the first step opens."""
        if self._recording is None:
            raise RuntimeError("the recording is opened by its first step")
        return self._recording

    async def step(self) -> Sequence[ChannelUtterance] | None:
        """Run `Recording.step`; the first call also opens the file. Not concurrently.

        Raises:
            ServiceError: as opening and reading do; or Draining, if the threads are shut down.
        """
        began = perf_counter()  # the loop's clock is coarse
        self._running = True
        try:
            return await in_pool(self._threads, self._end_step, self._step)
        finally:
            self.seconds += perf_counter() - began

    def close(self) -> None:
        """Close recording and file, after the running step if there is one; returns at once."""
        with self._lock:
            self._closed = True
            if self._running:
                return
        try:
            job = self._threads.submit(_nothing)  # in a thread, since ending the decoder's process may block
        except RuntimeError:  # the threads are shut down
            self._close_files()
        else:
            job.add_done_callback(lambda _: self._close_files())  # also if the job is dropped

    def _step(self) -> Sequence[ChannelUtterance] | None:
        if self._recording is None:
            self._recording = Recording(self._file, self._options, self._max_duration)
        return self._recording.step()

    def _end_step(self) -> None:
        with self._lock:
            self._running = False
            if not self._closed:
                return
        self._close_files()

    def _close_files(self) -> None:
        if self._recording is not None:
            self._recording.close()
        self._file.close()


def _nothing() -> None:
    pass
