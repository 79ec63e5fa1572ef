"""Read a long recording step by step, each step in a thread, and cut it into utterances."""

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
    """A file that is read and cut into utterances step by step, in memory that does not depend on its length.

    Args:
        file: the upload, which must stay open.
        options: which channels and which stretch of it.
        max_duration: seconds that it may last.

    Attributes:
        sampling_rate: in Hz.
        channels: how many it has.

    Raises:
        AudioError: if the audio is not usable, as far as its beginning tells.
        InvalidOptions: if an option does not fit it.
        QueueFull: if too many files are being decoded.
    """

    def __init__(self, file: BinaryIO, options: Options, max_duration: float) -> None:
        self._reader = open_reader(file, max_duration=max_duration)
        self.sampling_rate = self._reader.sampling_rate
        self.channels = self._reader.channels
        self._trim = options.trim
        try:
            self._cut = FileCut(self._reader, channels=options.channels, start=options.start, end=options.end)
        except BaseException:
            self._reader.close()
            raise
        self._steps = self._cut.steps()

    @property
    def duration(self) -> float:
        """Seconds that have been read by now."""
        return self._cut.duration

    @property
    def narrow_band(self) -> bool:
        """Whether nothing in what has been read by now has sound above the band of telephones."""
        return self._cut.narrow_band

    def step(self) -> Sequence[ChannelUtterance] | None:
        """Read on for some seconds of the file: the utterances that are complete now, None at its end.

        Raises:
            AudioError: if it turns out not to be usable.
            InvalidOptions: if it ends before it should begin.
        """
        return next(self._steps, None)

    def clip(self, piece: ChannelUtterance) -> Clip:
        """An utterance as the recognizer takes it."""
        return Clip(piece.utterance.samples, self.sampling_rate, self._trim)

    def close(self) -> None:
        """Stop reading; not while a step is running."""
        self._reader.close()


class RecordingReader:
    """Opens a recording and takes its steps in threads, and frees it once no thread uses it any more.

    A thread cannot be stopped, so a step whose caller has left goes on to its end, and the file stays open until then.

    Args:
        threads: in which everything happens.
        file: the upload, closed in the end.
        options: which channels and which stretch of it.
        max_duration: seconds that it may last.

    Attributes:
        seconds: how long the steps have taken together, waiting for a thread included.
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
        """What the first step has opened."""
        if self._recording is None:
            raise RuntimeError("the recording is opened by its first step")
        return self._recording

    async def step(self) -> Sequence[ChannelUtterance] | None:
        """Take one step, the first of which also opens the file; see `Recording.step`. One at a time.

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
        """Free everything, or let the step that is running do it. Returns at once."""
        with self._lock:
            self._closed = True
            if self._running:
                return
        try:
            job = self._threads.submit(_nothing)  # in a thread, since ending the decoder's process takes a moment
        except RuntimeError:  # the threads are shut down
            self._free()
        else:
            job.add_done_callback(lambda _: self._free())  # also where the job is dropped

    def _step(self) -> Sequence[ChannelUtterance] | None:
        if self._recording is None:
            self._recording = Recording(self._file, self._options, self._max_duration)
        return self._recording.step()

    def _end_step(self) -> None:
        with self._lock:
            self._running = False
            if not self._closed:
                return
        self._free()

    def _free(self) -> None:
        if self._recording is not None:
            self._recording.close()
        self._file.close()


def _nothing() -> None:
    pass
