"""How well long calls are cut and labelled: `python -m loadtests.long_call --help`.

    python -m loadtests.long_call --audio /path/to/emodb --speakers 12 13 14 15 16 --document docs/accuracy.md

For each codec and each pair of noise levels, a call is put together of clips (`loadtests.calls`), encoded, and sent to
a server of its own, which answers line by line. Where something was said is known from the clips alone, and so are
labels: each clip is sent by itself too, as loud as in the call and through the same codec, but without the noise of the
line; and so is the stretch of the call that it takes. The first comparison tells what a caller gets, the second what of
it is due to cutting.
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

from loadtests import documents, machine
from loadtests.calls import CODECS, RATE, Call, Turn, clips, encode, make_call
from loadtests.capacity import described
from loadtests.processes import serving_with
from service.preprocess.reader import open_reader
from service.preprocess.segmentation.file_utterances import cut_file
from service.results import Floats

TOLERANCE = 0.3
FOUND_NEEDED = 0.95
SAME_NEEDED = 0.9


@dataclass(frozen=True, slots=True)
class Segment:
    """What the service says of a stretch of a channel; times in seconds."""

    channel: int
    start: float
    end: float
    label: str

    def meets(self, turn: Turn) -> bool:
        """Whether it has any moment of a clip."""
        return self.channel == turn.channel and self.start < turn.end and self.end > turn.start

    def is_that_of(self, turn: Turn) -> bool:
        """Whether it begins and ends where a clip does."""
        near = abs(self.start - turn.start) <= TOLERANCE and abs(self.end - turn.end) <= TOLERANCE
        return near and self.meets(turn)


@dataclass(slots=True)
class Counts:
    """How often.

    Attributes:
        clips: there were.
        found: a segment begins and ends within `TOLERANCE` where the clip does.
        missed: no segment has any moment of the clip.
        parted: several segments have.
        same: of those found, the label is that of the clip alone.
        same_stretch: of those found, the label is that of this stretch of the call, sent alone.
        segments: there were.
        stray: of those, they have no moment of any clip.
    """

    clips: int = 0
    found: int = 0
    missed: int = 0
    parted: int = 0
    same: int = 0
    same_stretch: int = 0
    segments: int = 0
    stray: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        mine, others = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})

    @property
    def found_share(self) -> float:
        """Of the clips."""
        return self.found / max(1, self.clips)

    @property
    def same_share(self) -> float:
        """Of those found."""
        return self.same / max(1, self.found)

    @property
    def met(self) -> bool:
        """Whether both goals are."""
        return self.found_share >= FOUND_NEEDED and self.same_share >= SAME_NEEDED


@dataclass
class Result:
    """One call: codec, noise in each channel in dBFS, counts by channel, seconds from upload to first and last line.

    `cutting` is the processor time that reading and cutting take by themselves, in this process.
    """

    codec: str
    noise: tuple[float, float]
    channels: dict[int, Counts] = field(default_factory=dict)
    first: float = 0.0
    seconds: float = 0.0
    cutting: float = 0.0

    @property
    def total(self) -> Counts:
        """Both channels."""
        return sum(self.channels.values(), Counts())


def segments_of(data: bytes, client: Client) -> Iterator[Segment]:
    """The segments of a file, channel by channel as in a call, each as soon as the server tells it."""
    for event in client.segments(data, channels="split"):
        if event["type"] == "segment":
            yield Segment(event["channel"], event["start"], event["end"], event["label"])


def label_of(data: bytes, client: Client) -> str | None:
    """The label of a file."""
    return client.recognize(data)["label"]


def exactly(samples: Floats, sampling_rate: int) -> bytes:
    """A file of these very samples, float32 (time,)."""
    file = io.BytesIO()
    soundfile.write(file, samples, sampling_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def judge(
    turns: Iterable[Turn], segments: Iterable[Segment], alone: Sequence[str | None], stretches: Sequence[str | None]
) -> dict[int, Counts]:
    """Compare segments with what was said.

    Args:
        turns: the clips of a call.
        segments: what the service found in it.
        alone: the label of each clip alone.
        stretches: the label of each clip's stretch of the call.

    Returns:
        By channel.
    """
    counts = {0: Counts(), 1: Counts()}
    segments, turns = list(segments), list(turns)
    for turn, label, stretch in zip(turns, alone, stretches, strict=True):
        count = counts[turn.channel]
        meeting = [segment for segment in segments if segment.meets(turn)]
        count.clips += 1
        count.missed += not meeting
        count.parted += len(meeting) > 1
        for segment in meeting:
            if segment.is_that_of(turn):
                count.found += 1
                count.same += segment.label == label
                count.same_stretch += segment.label == stretch
                break
    for segment in segments:
        counts[segment.channel].segments += 1
        counts[segment.channel].stray += not any(segment.meets(turn) for turn in turns)
    return counts


def measure(call: Call, codec: str, noise: tuple[float, float], client: Client) -> Result:
    """Send a call to the service, and its clips by themselves."""
    data = encode(call.samples, codec)
    result = Result(codec, noise)
    segments = []
    began = time.perf_counter()
    for segment in segments_of(data, client):
        result.first = result.first or time.perf_counter() - began
        segments.append(segment)
    result.seconds = time.perf_counter() - began
    began = time.process_time()
    with open_reader(data, max_duration=call.samples.shape[1] / RATE + 1) as reader:
        for _ in cut_file(reader, channels="split", start=None, end=None).steps():
            pass
    result.cutting = time.process_time() - began
    alone = [label_of(encode(turn.samples[None], codec), client) for turn in call.turns]
    with open_reader(data, max_duration=call.samples.shape[1] / RATE + 1) as reader:
        rate = reader.sampling_rate  # Opus is decoded at its own
        heard = np.concatenate(list(reader.blocks()), axis=1)
    stretches = [
        label_of(exactly(heard[turn.channel, round(turn.start * rate) : round(turn.end * rate)], rate), client)
        for turn in call.turns
    ]
    result.channels = judge(call.turns, segments, alone, stretches)
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


def markdown(results: Sequence[Result], facts: dict[str, str]) -> str:
    """What was found, for a document."""
    listed = documents.listed(facts, "date", "revision", "CPU", "command", "model", "calls", "pace", "server")
    return f"{listed}\n{documents.table(HEAD, (cells for result in results for cells in _rows(result)))}"


def _pace(result: Result) -> str:
    lines = f"first segment after {result.first:.1f} s, the last after {result.seconds:.1f} s"
    return f"{lines}; cutting {result.cutting:.1f} s"


def _rows(result: Result) -> Iterator[list[str]]:
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
            str(counts.parted),
            str(counts.missed),
            f"{counts.same_share:.1%}",
            f"{counts.same_stretch / max(1, counts.found):.1%}",
            str(counts.segments),
            str(counts.stray),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 where a goal is missed."""
    options = parser().parse_args(arguments)
    sources = clips(options.audio, options.speakers)
    results = []
    with serving_with(options.flags) as server, Client(server.url) as client:
        model = described(server.url)
        for noise in options.noise or [(-60.0, -50.0)]:
            call = make_call(sources, options.seconds, seed=options.seed, noise=tuple(noise))
            for codec in options.codec:
                results.append(result := measure(call, codec, tuple(noise), client))
                print(documents.table(HEAD, _rows(result)), _pace(result), flush=True)
        memory = server.peak_memory()
    facts = {
        **machine.facts(),
        "command": f"`python -m loadtests.long_call {' '.join(arguments if arguments is not None else sys.argv[1:])}`",
        "model": model,
        "calls": f"{options.seconds:g} s each, of {len(sources)} clips, seed {options.seed}",
        "pace": " · ".join(map(_pace, results)),
        "server": f"{memory:.0f} MB at most",
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"facts": facts, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.document:
        documents.insert(options.document, options.name, markdown(results, facts))
    return int(not all(result.total.met for result in results))


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(prog="python -m loadtests.long_call", description="How well calls are cut.")
    made.add_argument("--seconds", type=float, default=3600.0, help="that each call lasts [3600]")
    made.add_argument("--seed", type=int, default=1, help="of what is said when [1]")
    made.add_argument("--audio", type=Path, help="a folder with flac files [the bundled clips]")
    made.add_argument("--speakers", nargs="*", default=(), help="of EmoDB or RAVDESS [all]")
    made.add_argument("--codec", nargs="+", choices=list(CODECS), default=["mu-law"])
    made.add_argument(
        "--noise", type=float, nargs=2, action="append", metavar="DBFS", help="in each channel; again for more calls"
    )
    made.add_argument("--json", type=Path, help="write all figures there")
    made.add_argument("--document", type=Path, help="put the table there, between its marks")
    made.add_argument("--name", default="calls", help="of those marks [calls]")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="of `serve`")
    return made


if __name__ == "__main__":
    sys.exit(main())
