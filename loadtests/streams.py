"""How soon live audio is answered, and what it costs requests: `python -m loadtests.streams --help`.

    python -m loadtests.streams --document docs/capacity.md
    python -m loadtests.streams --streams 0 10 50 --url http://127.0.0.1:8000

For each number of streams, so many calls are sent as they are spoken, in pieces of a tenth of a second, while some
callers post a clip of three seconds, each again as soon as it has its answer. The delay of a window is from the moment
its last piece was sent to the moment its scores are read. Without `--url`, a server is started, with the flags after
`--`.

Streams and callers are in this process. Where it runs beside the server, it takes its share of the cores, and a delay
includes what this process takes to notice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import numpy as np
import soxr
from emotion2vec_client import RequestFailed, open_stream

from loadtests import clips, documents, machine
from loadtests.capacity import described, server
from loadtests.traffic import headers
from service.results import SAMPLING_RATE

RATE = 8_000
PIECE = 0.1
POST_SECONDS = 3.0
STREAMS = (0, 10, 50)
_TIMEOUT = 120.0
_SPOKEN = 3.0
_PAUSE = 1.0


@dataclass
class Step:
    """What so many streams and the posts beside them have got; times in seconds.

    Attributes:
        streams: how many there were.
        seconds: how long it took to answer them all.
        delays: of all windows.
        skipped: windows left out.
        utterances: answered.
        failed_streams: that did not come to their result.
        posts: the times that they took.
        failed_posts: how many had no answer.
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
        """As a row of the table."""
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


def spoken(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """16-bit samples of a call of so many seconds: three seconds of speech, one of silence, and so on."""
    voice = soxr.resample(clips.speech(_SPOKEN), SAMPLING_RATE, RATE)
    turn = np.concatenate([voice, np.random.default_rng(7).normal(0, 1e-4, round(_PAUSE * RATE))])
    return np.asarray(np.resize(turn, round(seconds * RATE)) * 32767, dtype="<i2")


async def _stream(url: str, samples: np.ndarray[tuple[int], np.dtype[np.int16]], step: Step, hop: float) -> None:
    """One call, as it is spoken, from some moment within the first hop on."""
    sent: list[float] = []
    await asyncio.sleep(random.random() * hop)
    try:
        async with (
            open_stream(url, sampling_rate=RATE, hop=hop, api_key=os.environ.get("LOAD_API_KEY")) as stream,
            asyncio.TaskGroup() as tasks,
        ):
            size = round(PIECE * RATE)

            async def speak() -> None:
                began = time.perf_counter()
                for index in range(0, len(samples), size):
                    await asyncio.sleep(began + (index + size) / RATE - time.perf_counter())
                    await stream.send(samples[index : index + size].tobytes())
                    sent.append(time.perf_counter())
                await stream.end()

            tasks.create_task(speak())
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


async def _poster(client: httpx.AsyncClient, clip: bytes, step: Step, over: asyncio.Event) -> None:
    while not over.is_set():
        began = time.perf_counter()
        try:
            response = await client.post("/recognize", content=clip, headers={"Content-Type": "audio/wav"})
        except httpx.HTTPError:
            step.failed_posts += 1
            continue
        if response.status_code == 200:
            step.posts.append(time.perf_counter() - began)
        else:
            step.failed_posts += 1


async def measure(url: str, streams: int, *, posters: int, seconds: float, hop: float) -> Step:
    """What so many streams and posters get in so many seconds."""
    step = Step(streams, seconds)
    began = time.perf_counter()
    clip = clips.wav(clips.speech(POST_SECONDS))
    samples = spoken(seconds)
    over = asyncio.Event()
    async with httpx.AsyncClient(
        base_url=url, headers=headers(os.environ), timeout=_TIMEOUT, limits=httpx.Limits(max_connections=None)
    ) as client:
        posting = [asyncio.create_task(_poster(client, clip, step, over)) for _ in range(posters)]
        await asyncio.gather(asyncio.sleep(seconds), *(_stream(url, samples, step, hop) for _ in range(streams)))
        over.set()
        await asyncio.gather(*posting)
    step.seconds = time.perf_counter() - began  # a server that cannot keep up takes longer
    return step


def markdown(facts: dict[str, str], steps: Sequence[Step], posters: int, seconds: float, hop: float) -> str:
    """What was found, for a document."""
    said = (
        f"Windows of 3 s every {hop:g} s at 8 kHz, and {posters} callers that post {POST_SECONDS:g} s; "
        f"{seconds:g} s of audio for each row. Streams and callers ran on the same machine."
    )
    return (
        documents.listed(facts, "date", "revision", "CPU", "model")
        + f"\n{said}\n\n"
        + documents.table(HEAD, (step.cells() for step in steps))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 where a stream or a post failed."""
    options = parser().parse_args(arguments)
    if options.url and options.flags:
        raise SystemExit("flags are for a server that is started; there is one already at the URL")
    steps = []
    print("  ".join(f"{name:>10}" for name in HEAD), flush=True)
    with server(options.url, options.flags) as url:
        facts = {**machine.facts(), "model": described(url)}
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
    """What the command takes."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.streams", description="How soon live audio is answered, and what it costs requests."
    )
    made.add_argument("--url", help="a server that runs [start one]")
    made.add_argument("--streams", type=int, nargs="+", default=STREAMS, help="numbers of streams to try [0 10 50]")
    made.add_argument("--posters", type=int, default=5, help="callers that post meanwhile [5]")
    made.add_argument("--seconds", type=float, default=30.0, help="for each number [30]")
    made.add_argument("--hop", type=float, default=1.0, help="seconds from one window to the next [1]")
    made.add_argument("--json", type=Path, help="write all figures there")
    made.add_argument("--document", type=Path, help="put the table there, between its marks")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="of `serve`, for the server that is started")
    return made


if __name__ == "__main__":
    sys.exit(main())
