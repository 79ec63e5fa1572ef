"""Segmentation and labels of long calls: `python -m loadtests.accuracy.long_call --help`.

    python -m loadtests.accuracy.long_call --audio /path/to/emodb --speakers 12 13 14 --document docs/accuracy.md

For each codec and each pair of noise levels, a call is composed of clips (`synthetic_calls`), encoded, and sent to a
server that is started for it, which answers segment by segment. The positions of the clips in the call are known. Their
labels are those of two more requests: each clip alone, with the level and codec of the call but without line noise; and
the section of the call that contains the clip. Labels of segments are compared with both: the first comparison shows
what a caller gets, the second shows the influence of segmentation alone.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from emotion2vec_client import Client

from loadtests.accuracy.synthetic_calls import CODECS, RATE, SpokenClip, SyntheticCall, encode, make_call, source_clips
from loadtests.common import documents, machine
from loadtests.common.server_process import model_description, start_service
from service.preprocess.reader import open_reader
from service.preprocess.segmentation.file_utterances import FileCut
from service.results import Floats

TOLERANCE = 0.3
"""Greatest difference in seconds between the beginnings, and the ends, of a segment and its clip."""

FOUND_NEEDED = 0.95
SAME_NEEDED = 0.9


@dataclass(frozen=True, slots=True)
class LabelledSegment:
    """A segment of a channel and its label, as the service answers them; times in seconds."""

    channel: int
    start: float
    end: float
    label: str

    def overlaps(self, clip: SpokenClip) -> bool:
        """Whether it overlaps a clip."""
        return self.channel == clip.channel and self.start < clip.end and self.end > clip.start

    def matches(self, clip: SpokenClip) -> bool:
        """Whether it begins and ends where a clip does, within `TOLERANCE`."""
        near = abs(self.start - clip.start) <= TOLERANCE and abs(self.end - clip.end) <= TOLERANCE
        return near and self.overlaps(clip)


@dataclass(slots=True)
class SegmentationCounts:
    """Numbers of clips and segments.

    Attributes:
        clips: all clips.
        found: clips that a segment matches.
        missed: clips that no segment overlaps.
        split: clips that several segments overlap.
        same: clips found whose segment has the label of the clip alone.
        same_section: clips found whose segment has the label of that section of the call, sent alone.
        segments: all segments.
        stray: segments that overlap no clip.
    """

    clips: int = 0
    found: int = 0
    missed: int = 0
    split: int = 0
    same: int = 0
    same_section: int = 0
    segments: int = 0
    stray: int = 0

    def __add__(self, other: SegmentationCounts) -> SegmentationCounts:
        """The sums."""
        mine, others = asdict(self), asdict(other)
        return SegmentationCounts(**{name: mine[name] + others[name] for name in mine})

    @property
    def found_share(self) -> float:
        """Share of the clips that were found."""
        return self.found / max(1, self.clips)

    @property
    def same_share(self) -> float:
        """Share of the clips found whose segment has the label of the clip alone."""
        return self.same / max(1, self.found)

    @property
    def met(self) -> bool:
        """Whether both goals are met."""
        return self.found_share >= FOUND_NEEDED and self.same_share >= SAME_NEEDED


@dataclass
class CallResult:
    """Results of one call.

    Attributes:
        codec: one of `CODECS`.
        noise: level in each channel in dBFS.
        channels: counts by channel.
        first: seconds from the request to the first segment.
        seconds: seconds from the request to the end of the answer.
        cutting: processor time in seconds of decoding and segmentation alone, measured in this process.
    """

    codec: str
    noise: tuple[float, float]
    channels: dict[int, SegmentationCounts] = field(default_factory=dict)
    first: float = 0.0
    seconds: float = 0.0
    cutting: float = 0.0

    @property
    def total(self) -> SegmentationCounts:
        """The counts of both channels."""
        return sum(self.channels.values(), SegmentationCounts())


def segments_of(data: bytes, client: Client) -> Iterator[LabelledSegment]:
    """The segments of a two-channel file, each as soon as the server answers it."""
    for event in client.segments(data, channels="split"):
        if event["type"] == "segment":
            yield LabelledSegment(event["channel"], event["start"], event["end"], event["label"])


def label_of(data: bytes, client: Client) -> str | None:
    """The label of a file."""
    return client.recognize(data)["label"]


def lossless(samples: Floats, sampling_rate: int) -> bytes:
    """A WAV file of float32 samples (time,), unchanged."""
    file = io.BytesIO()
    soundfile.write(file, samples, sampling_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def compare(
    spoken: Iterable[SpokenClip],
    segments: Iterable[LabelledSegment],
    alone: Sequence[str | None],
    sections: Sequence[str | None],
) -> dict[int, SegmentationCounts]:
    """Compare segments with the clips of a call.

    Args:
        spoken: the clips of a call.
        segments: the service's segments of it.
        alone: the label of each clip alone.
        sections: the label of the section of the call with each clip.

    Returns:
        Counts by channel.
    """
    counts = {0: SegmentationCounts(), 1: SegmentationCounts()}
    segments, spoken = list(segments), list(spoken)
    for clip, label, section in zip(spoken, alone, sections, strict=True):
        count = counts[clip.channel]
        overlapping = [segment for segment in segments if segment.overlaps(clip)]
        count.clips += 1
        count.missed += not overlapping
        count.split += len(overlapping) > 1
        for segment in overlapping:
            if segment.matches(clip):
                count.found += 1
                count.same += segment.label == label
                count.same_section += segment.label == section
                break
    for segment in segments:
        counts[segment.channel].segments += 1
        counts[segment.channel].stray += not any(segment.overlaps(clip) for clip in spoken)
    return counts


def measure(call: SyntheticCall, codec: str, noise: tuple[float, float], client: Client) -> CallResult:
    """Send a call to the service, its clips alone, and its sections with a clip alone."""
    data = encode(call.samples, codec)
    result = CallResult(codec, noise)
    segments = []
    began = time.perf_counter()
    for segment in segments_of(data, client):
        result.first = result.first or time.perf_counter() - began
        segments.append(segment)
    result.seconds = time.perf_counter() - began
    began = time.process_time()
    with open_reader(data, max_duration=call.samples.shape[1] / RATE + 1) as reader:
        for _ in FileCut(reader, channels="split", start=None, end=None).steps():
            pass
    result.cutting = time.process_time() - began
    alone = [label_of(encode(clip.samples[None], codec), client) for clip in call.spoken]
    with open_reader(data, max_duration=call.samples.shape[1] / RATE + 1) as reader:
        rate = reader.sampling_rate  # not `RATE` for Opus
        decoded = np.concatenate(list(reader.blocks()), axis=1)
    sections = [
        label_of(lossless(decoded[clip.channel, round(clip.start * rate) : round(clip.end * rate)], rate), client)
        for clip in call.spoken
    ]
    result.channels = compare(call.spoken, segments, alone, sections)
    return result


HEAD = (
    "codec",
    "noise, dBFS",
    "channel",
    "clips",
    "found",
    "in pieces",
    "missed",
    "label as alone",
    "as the same stretch",
    "segments",
    "of no clip",
)


def markdown(results: Sequence[CallResult], facts: dict[str, str]) -> str:
    """The results for a document."""
    listed = documents.fact_list(facts, "date", "revision", "CPU", "command", "model", "calls", "pace", "server")
    return f"{listed}\n{documents.table(HEAD, (cells for result in results for cells in _rows(result)))}"


def _pace(result: CallResult) -> str:
    lines = f"first segment after {result.first:.1f} s, the last after {result.seconds:.1f} s"
    return f"{lines}; cutting {result.cutting:.1f} s"


def _rows(result: CallResult) -> Iterator[list[str]]:
    noise = [f"{level:g}" for level in result.noise]
    for name, level, counts in (
        ("both", ", ".join(noise), result.total),
        *((str(channel), noise[channel], counts) for channel, counts in result.channels.items()),
    ):
        yield [
            result.codec,
            level,
            name,
            str(counts.clips),
            f"{counts.found_share:.1%}",
            str(counts.split),
            str(counts.missed),
            f"{counts.same_share:.1%}",
            f"{counts.same_section / max(1, counts.found):.1%}",
            str(counts.segments),
            str(counts.stray),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 if a goal is missed."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    sources = source_clips(options.audio, options.speakers)
    results = []
    with start_service(options.flags) as server, Client(server.url) as client:
        model = model_description(server.url)
        for noise in options.noise or [(-60.0, -50.0)]:
            call = make_call(sources, options.seconds, seed=options.seed, noise=tuple(noise))
            for codec in options.codec:
                results.append(result := measure(call, codec, tuple(noise), client))
                print(documents.table(HEAD, _rows(result)), _pace(result), flush=True)
        memory = server.peak_memory()
    facts = {
        **machine.facts(),
        "command": f"`python -m loadtests.accuracy.long_call {' '.join(given)}`",
        "model": model,
        "calls": f"{options.seconds:g} s each, of {len(sources)} clips, seed {options.seed}",
        "pace": " · ".join(map(_pace, results)),
        "server": f"{memory:.0f} MB at most",
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"facts": facts, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.document:
        documents.insert(options.document, options.name, markdown(results, facts))
    return int(not all(result.total.met for result in results))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.accuracy.long_call", description="Segmentation and labels of long calls."
    )
    made.add_argument("--seconds", type=float, default=3600.0, help="duration of each call [3600]")
    made.add_argument("--seed", type=int, default=1, help="of all random choices [1]")
    made.add_argument("--audio", type=Path, help="a folder with flac files [the bundled clips]")
    made.add_argument("--speakers", nargs="*", default=(), help="speakers of EmoDB or RAVDESS [all]")
    made.add_argument("--codec", nargs="+", choices=list(CODECS), default=["mu-law"])
    made.add_argument(
        "--noise",
        type=float,
        nargs=2,
        action="append",
        metavar="DBFS",
        help="noise in each channel; may be repeated for more calls",
    )
    made.add_argument("--json", type=Path, help="write all figures to this file")
    made.add_argument("--document", type=Path, help="write the table into this document, between its marks")
    made.add_argument("--name", default="calls", help="name of those marks [calls]")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags of `serve`")
    return made


if __name__ == "__main__":
    sys.exit(main())
