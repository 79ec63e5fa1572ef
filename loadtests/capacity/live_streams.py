"""Delay of live streams, and their effect on requests: `python -m loadtests.capacity.live_streams --help`.

    python -m loadtests.capacity.live_streams --document docs/capacity.md
    python -m loadtests.capacity.live_streams --streams 0 10 50 --url http://127.0.0.1:8000

For each number of streams, that many calls are sent in real time, in pieces of a tenth of a second, while some callers
post a clip of three seconds in a closed loop. The delay of a window is from the moment when its last piece was sent to
the moment when its scores are read. Without `--url`, a server is started with the flags after `--`.

Streams and callers run in this process. On the machine of the server, it takes a share of the cores, and a delay
includes the time until this process reads an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soxr
from emotion2vec_client import RequestFailed, open_stream

from loadtests.common import documents, machine
from loadtests.common.audio_clips import speech, wav
from loadtests.common.load_generator import LoadGenerator, Target, TimedResponse
from loadtests.common.server_process import model_description, service_url
from loadtests.common.traffic_mix import LoadRequest
from service.results import SAMPLING_RATE

RATE = 8_000
PIECE = 0.1
POST_SECONDS = 3.0
STREAMS = (0, 10, 50)
_SPEECH_SECONDS = 3.0
_SILENCE_SECONDS = 1.0


@dataclass
class StreamStep:
    """Results with one number of streams, and with the posts at the same time; times in seconds.

    Attributes:
        streams: number of streams.
        seconds: duration until all were answered.
        delays: of all windows.
        skipped: number of windows that the server left out.
        utterances: number of utterances answered.
        failed_streams: number of streams without a result.
        posts: latencies of posts with status 200.
        failed_posts: number of all other posts.
    """

    streams: int
    seconds: float
    delays: list[float] = field(default_factory=list)
    skipped: int = 0
    utterances: int = 0
    failed_streams: int = 0
    posts: list[float] = field(default_factory=list)
    failed_posts: int = 0

    def cells(self) -> list[str]:
        """The row of the table."""
        due = len(self.delays) + self.skipped
        return [
            str(self.streams),
            f"{len(self.delays) / self.seconds:.3g}",
            f"{self.skipped / due:.1%}" if due else "–",
            *(_quantile(self.delays, share) for share in (50, 90, 99)),
            f"{len(self.posts) / self.seconds:.3g}",
            *(_quantile(self.posts, share) for share in (50, 99)),
            str(self.failed_streams + self.failed_posts),
        ]


HEAD = ("streams", "windows/s", "left out", "delay P50", "P90", "P99", "posts/s", "post P50", "P99", "failed")


def _quantile(values: Sequence[float], share: int) -> str:
    return f"{float(np.percentile(values, share)):.3g} s" if values else "–"


def call_samples(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """16-bit samples of a call: three seconds of speech, one of silence, and so on."""
    voice = soxr.resample(speech(_SPEECH_SECONDS), SAMPLING_RATE, RATE)
    turn = np.concatenate([voice, np.random.default_rng(7).normal(0, 1e-4, round(_SILENCE_SECONDS * RATE))])
    return np.asarray(np.resize(turn, round(seconds * RATE)) * 32767, dtype="<i2")


async def _stream(url: str, samples: np.ndarray[tuple[int], np.dtype[np.int16]], step: StreamStep, hop: float) -> None:
    """One call in real time, which begins at a random moment within the first hop."""
    sent: list[float] = []
    await asyncio.sleep(random.random() * hop)
    try:
        async with (
            open_stream(url, sampling_rate=RATE, hop=hop, api_key=os.environ.get("LOAD_API_KEY")) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            size = round(PIECE * RATE)

            async def send_pieces() -> None:
                began = time.perf_counter()
                for index in range(0, len(samples), size):
                    await asyncio.sleep(began + (index + size) / RATE - time.perf_counter())
                    await stream.send(samples[index : index + size].tobytes())
                    sent.append(time.perf_counter())
                await stream.end()

            tasks.create_task(send_pieces())
            async for event in stream:
                now = time.perf_counter()
                if event["type"] == "window":
                    step.skipped += event["skipped"]
                    step.delays.append(now - sent[-(-round(event["end"] * RATE) // size) - 1])
                elif event["type"] == "utterance":
                    step.utterances += 1
    except (RequestFailed, BaseExceptionGroup) as error:
        print(f"a stream has failed: {error}", file=sys.stderr)
        step.failed_streams += 1


async def measure(url: str, streams: int, *, posters: int, seconds: float, hop: float) -> StreamStep:
    """Send `streams` streams of so many seconds, while `posters` callers post clips until all streams are answered."""
    step = StreamStep(streams, seconds)
    clip = LoadRequest("utterance", "", wav(speech(POST_SECONDS)), "audio/wav", POST_SECONDS)
    samples = call_samples(seconds)
    generator, over = LoadGenerator(), threading.Event()
    began = time.perf_counter()
    posting = asyncio.create_task(asyncio.to_thread(generator.callers_until, Target(url), posters, over, clip))
    try:
        await asyncio.gather(asyncio.sleep(seconds), *(_stream(url, samples, step, hop) for _ in range(streams)))
    finally:
        over.set()
    responses: list[TimedResponse] = await posting
    step.posts = [response.latency for response in responses if response.status == 200]
    step.failed_posts = len(responses) - len(step.posts)
    step.seconds = time.perf_counter() - began  # longer than planned if the server cannot keep up
    return step


def markdown(facts: dict[str, str], steps: Sequence[StreamStep], posters: int, seconds: float, hop: float) -> str:
    """The results for a document."""
    load = (
        f"Windows of 3 s every {hop:g} s at 8 kHz, and {posters} callers that post {POST_SECONDS:g} s; "
        f"{seconds:g} s of audio for each row. Streams and callers ran on the same machine."
    )
    return (
        documents.fact_list(facts, "date", "revision", "CPU", "model")
        + f"\n{load}\n\n"
        + documents.table(HEAD, (step.cells() for step in steps))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 if a stream or a post failed."""
    options = parser().parse_args(arguments)
    steps = []
    print("  ".join(f"{name:>10}" for name in HEAD), flush=True)
    with service_url(options.url, options.flags) as url:
        facts = {**machine.facts(), "model": model_description(url)}
        for streams in options.streams:
            step = asyncio.run(measure(url, streams, posters=options.posters, seconds=options.seconds, hop=options.hop))
            print("  ".join(f"{cell:>10}" for cell in step.cells()), flush=True)
            steps.append(step)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(step) for step in steps], indent=1) + "\n", encoding="utf-8")
    if options.document:
        documents.insert(
            options.document, "streams", markdown(facts, steps, options.posters, options.seconds, options.hop)
        )
    return int(any(step.failed_streams or step.failed_posts for step in steps))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.capacity.live_streams",
        description="Delay of live streams, and their effect on requests.",
    )
    made.add_argument("--url", help="of a running server [start one]")
    made.add_argument("--streams", type=int, nargs="+", default=STREAMS, help="numbers of streams to try [0 10 50]")
    made.add_argument("--posters", type=int, default=5, help="callers that post clips at the same time [5]")
    made.add_argument("--seconds", type=float, default=30.0, help="duration for each number [30]")
    made.add_argument("--hop", type=float, default=1.0, help="seconds from one window to the next [1]")
    made.add_argument("--json", type=Path, help="write all figures to this file")
    made.add_argument("--document", type=Path, help="write the table into this document, between its marks")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags of `serve`, for the server that is started")
    return made


if __name__ == "__main__":
    sys.exit(main())
