"""The options of a live stream: the format of its audio, and the results to return."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.recognition.options import LabelLanguage, Options
from service.results import MIN_SAMPLES, SAMPLING_RATE

MIN_RATE = 1_000
MAX_RATE = 48_000
MAX_CHANNELS = 8
MAX_LABELS = 64
MIN_SECONDS = 0.1
MAX_SECONDS = 30.0

_HOP = 1.0

_Seconds = Annotated[float, Field(ge=MIN_SECONDS, le=MAX_SECONDS, allow_inf_nan=False)]


class StreamOptions(BaseModel):
    """The format of the audio of a stream, and the results to return.

    `channels` are interleaved; `select` chooses among them as the option `channels` of a request does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sampling_rate: Annotated[int, Field(ge=MIN_RATE, le=MAX_RATE)]
    encoding: Literal["s16le", "f32le"]
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 1
    select: Literal["mix", "split"] | Annotated[int, Field(ge=0, lt=MAX_CHANNELS)] = "mix"
    window: _Seconds = 3.0
    hop: _Seconds | None = None
    trim: bool = False
    labels: Annotated[list[str], Field(min_length=1, max_length=MAX_LABELS)] | None = None
    label_language: LabelLanguage = "en"
    embedding: Literal["none", "utterance"] = "none"
    late: Literal["skip", "wait"] = "skip"

    @property
    def scored_channels(self) -> int:
        """Number of channels that are scored: all with `select=split`, otherwise one."""
        return self.channels if self.select == "split" else 1

    @property
    def kept_channels(self) -> int:
        """Number of channels whose samples are kept: a mix needs all, in case their mean cancels out."""
        return 1 if isinstance(self.select, int) else self.channels

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        return 2 if self.encoding == "s16le" else 4

    @property
    def window_samples(self) -> int:
        """Samples of a window, in one channel."""
        return round(self.window * self.sampling_rate)

    @property
    def hop_samples(self) -> int:
        """Samples from one window to the next."""
        return round(self.hop_seconds * self.sampling_rate)

    @property
    def hop_seconds(self) -> float:
        """Seconds from one window to the next; by default a second, or the window's length if that is shorter."""
        return min(_HOP, self.window) if self.hop is None else self.hop

    @property
    def shortest_samples(self) -> int:
        """Samples of the shortest clip that the model takes, rounded up."""
        return -(-MIN_SAMPLES * self.sampling_rate // SAMPLING_RATE)

    def clip_options(self) -> Options:
        """The corresponding options of a request."""
        labels = None if self.labels is None else tuple(self.labels)
        return Options(embedding=self.embedding, label_language=self.label_language, labels=labels)
