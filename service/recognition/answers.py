"""Build results, in the shapes of `result_types`, from recognitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from service.recognition.json_encoding import Base64
from service.recognition.options import Encoding, LabelLanguage, Options
from service.recognition.scores import WeightedMean
from service.results import DecodedFile, Floats, Label, ModelInfo, Recognition, Span

if TYPE_CHECKING:
    from service.recognition.result_types import (
        Audio,
        ChannelResult,
        EncodedArray,
        FileResult,
        LabelScore,
        ModelDetails,
        ModelSummary,
        Overall,
        Result,
        Segment,
        Stretch,
    )

DIGITS = 6
"""Decimals of times in answers: microseconds, finer than a sample and coarser than rounding errors."""


def model_summary(model: ModelInfo) -> ModelSummary:
    """The identity of a model."""
    return {
        "id": model.id,
        "revision": model.revision,
        "backend": model.backend,
        "device": model.device,
        "dtype": model.dtype,
        "demonstration": model.demonstration,
    }


def model_details(model: ModelInfo) -> ModelDetails:
    """A model with its labels, as `GET /models` shows it."""
    answerable = [label for index, label in enumerate(model.labels) if index not in model.masked]
    # mypy cannot know that a ModelSummary has no key `int8_error`.
    details = cast(
        "ModelDetails",
        {
            **model_summary(model),
            "labels": [{"en": label.en, "zh": label.zh, "native": label.native} for label in answerable],
            "embedding_size": model.embedding_size,
        },
    )
    if (error := model.int8_error) is not None:
        details["int8_error"] = {
            "score_difference": error.score_difference,
            "equal_labels": error.equal_labels,
            "clips": error.clips,
        }
    return details


def file_result(file: DecodedFile, recognitions: Sequence[Recognition], options: Options) -> FileResult:
    """The result for one file, or a list of results by channel with `channels=split`."""
    audio: Audio = {
        "duration": round(file.duration, DIGITS),
        "sampling_rate": file.sampling_rate,
        "channels": file.channels,
        "narrow_band": file.narrow_band,
        "truncated": file.truncated,
    }
    if file.unread_bytes:
        audio["unread_bytes"] = file.unread_bytes
    if file.taken_channel is not None:
        audio["taken_channel"] = file.taken_channel
    results = [result_of(recognition, options) for recognition in recognitions]
    stretches = [_stretch(recognition.speech) for recognition in recognitions]
    if options.channels == "split":
        channels: list[ChannelResult] = [
            {"channel": index, "speech": stretch, **result}
            for index, (stretch, result) in enumerate(zip(stretches, results, strict=True))
        ]
        return {"audio": audio, "channels": channels}
    # mypy cannot know that a Result has no key `channels`.
    return cast("FileResult", {"audio": {**audio, "speech": stretches[0]}, **results[0]})


def segment_of(recognition: Recognition, options: Options, *, start: float, end: float, channel: int | None) -> Segment:
    """The result for a stretch of a recording or a stream; `channel` is None unless channels are split."""
    where = {} if channel is None else {"channel": channel}
    times = {"start": round(start, DIGITS), "end": round(end, DIGITS)}
    return cast("Segment", {**where, **times, **result_of(recognition, options)})


def overall_of(mean: WeightedMean, options: Options) -> Overall | Result:
    """The mean over the stretches of a recording or a stream; null and empty if there are none."""
    recognition = mean.recognition()
    if recognition is None:
        return {"label": None, "score": None, "scores": []}
    return result_of(recognition, options)


def result_of(recognition: Recognition, options: Options) -> Result:
    """The scores of one waveform, with embedding and scores over time if they were requested."""
    names = [_name(label, options.label_language) for label in recognition.labels]
    scores: list[LabelScore] = [
        {"label": name, "score": score} for name, score in zip(names, recognition.scores, strict=True)
    ]
    best = scores[recognition.best]
    result: Result = {"label": best["label"], "score": best["score"], "scores": scores}
    if recognition.embedding is not None:
        result["embedding"] = _embedding(recognition.embedding, options.encoding)
    if recognition.frames is not None:
        frames = recognition.frames
        result["frames"] = {
            "start": round(frames.start, DIGITS),
            "hop": round(frames.hop, DIGITS),
            "window": round(frames.window, DIGITS),
            "labels": names,
            "scores": frames.scores,
        }
    return result


def _embedding(values: Floats, encoding: Encoding) -> Floats | EncodedArray:
    if encoding == "base64":
        return {"dtype": "float32", "shape": list(values.shape), "data": Base64(values)}
    return values


def _stretch(span: Span | None) -> Stretch | None:
    return None if span is None else {"start": round(span.start, DIGITS), "end": round(span.end, DIGITS)}


def _name(label: Label, language: LabelLanguage) -> str:
    return {"en": label.en, "zh": label.zh, "native": label.native}[language]
