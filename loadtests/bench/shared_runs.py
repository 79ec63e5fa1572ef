"""Speed-up of short clips that share a run of the CPU backend: `python -m loadtests.bench.shared_runs DIRECTORY`.

DIRECTORY is a prepared model. Clips of one length that add up to five seconds are run one by one and together, in
turn; the speed-up is the median of the ratios, above 1 if together is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from loadtests.common.audio_clips import speech
from service.inference.backends.onnx_backend import SHARED_SECONDS, OnnxBackend
from service.model.manifest import Manifest
from service.results import SAMPLING_RATE, Clip

_LENGTHS = (0.4, 0.7, 1.0, 1.5, 2.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.shared_runs", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("directory", type=Path, help="a prepared model")
    parser.add_argument("--seconds", type=float, nargs="+", default=_LENGTHS, help="lengths of clips")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    manifest = Manifest.read(options.directory)
    alone, together = (
        OnnxBackend(options.directory, manifest, dtype="fp32", threads=0, sharing_up_to=below)
        for below in (0.0, SHARED_SECONDS)
    )
    print("| clips | one by one, ms | together, ms | times as fast |\n|---|---|---|---|")
    for seconds in options.seconds:
        clips = [Clip(speech(seconds), SAMPLING_RATE, trim=False)] * int(SHARED_SECONDS / seconds)
        one, other = times_in_turn(partial(alone.run, clips), partial(together.run, clips), options.rounds)
        ratio = median(first / second for first, second in zip(one, other, strict=True))
        print(f"| {len(clips)} of {seconds:g} s | {median(one):.0f} | {median(other):.0f} | {ratio:.2f} |")


def times_in_turn(
    one: Callable[[], object], other: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of each call in every round, after one round as warm-up."""
    took: tuple[list[float], list[float]] = ([], [])
    for recorded in [False] + [True] * rounds:
        for call, values in zip((one, other), took, strict=True):
            began = time.perf_counter()
            call()
            if recorded:
                values.append(1000 * (time.perf_counter() - began))
    return took


if __name__ == "__main__":
    main()
