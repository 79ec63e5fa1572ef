"""Rows that are measured inside the processes of the sides, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.checkpoint import BenchModel
from loadtests.clips import real_clips
from loadtests.holdings import peak_memory
from loadtests.sides import DeviceSide, FunASRSide, HostSide, LibrosaSide, ServiceSide, Side
from loadtests.tables import Row, Table
from loadtests.worker import Worker

FRAME_SECONDS = 10.0
MEMORY_SECONDS = 30.0
SHORT_SECONDS = 1.0
SHORT_CLIPS = 5
_PAUSE = 0.2
"""Seconds between two sides, in which the threads of the last one stop waiting for work."""


def open_side(model: BenchModel, side: Side) -> Worker:
    """Load one side in a process of its own."""
    if side.dtype is None:
        return Worker(FunASRSide, model.hub, side)
    return Worker(ServiceSide, model.prepared, side)


def in_turn(workers: Mapping[str, Worker], method: str, *args: object, rounds: int) -> dict[str, list[float]]:
    """Call every worker once unrecorded, and then in `rounds` rounds, one after the other in each round."""
    values: dict[str, list[float]] = {key: [] for key in workers}
    for recorded in [False] + [True] * rounds:
        for key, worker in workers.items():
            time.sleep(_PAUSE)
            seconds = worker.call(method, *args)
            if recorded:
                values[key].append(seconds)
    return values


def model_rows(
    model: BenchModel, sides: Sequence[Side], rounds: Mapping[float, int]
) -> tuple[list[Row], dict[str, str]]:
    """Time for clips of several lengths, frame mode and peak memory; and what each side says of itself.

    Args:
        model: what runs.
        sides: where it runs.
        rounds: by length of the clip in seconds, ascending.
    """
    rows = []
    memory: dict[str, list[float]] = {}
    with ExitStack() as stack:
        workers = {side.key: stack.enter_context(open_side(model, side)) for side in sides}
        described = {side.title: str(workers[side.key].call("describe")) for side in sides}
        for seconds, count in rounds.items():
            values = in_turn(workers, "utterance", seconds, rounds=count)
            rows.append(Row(f"utterance-{seconds:g}", f"utterance of {seconds:g} s", "s", values))
            if seconds == SHORT_SECONDS:
                name = f"{SHORT_CLIPS} utterances of {seconds:g} s in one call"
                values = in_turn(workers, "together", seconds, SHORT_CLIPS, rounds=count)
                rows.append(Row("together-1", name, "s", values))
            if seconds == FRAME_SECONDS:
                rows += _frame_rows(workers, count)
            if seconds <= MEMORY_SECONDS:
                memory = {key: [peak_memory(worker.pid)] for key, worker in workers.items()}
    longest = min(MEMORY_SECONDS, max(rounds))
    rows.append(Row("memory-process", f"peak memory in process, clips up to {longest:g} s", "MB", memory))
    return rows, described


def _frame_rows(workers: Mapping[str, Worker], rounds: int) -> list[Row]:
    frame: dict[str, list[float]] = {key: [] for key in workers}
    share: dict[str, list[float]] = {key: [] for key in workers}
    for recorded in [False] + [True] * rounds:
        for key, worker in workers.items():
            time.sleep(_PAUSE)
            utterance = worker.call("utterance", FRAME_SECONDS)
            time.sleep(_PAUSE)
            seconds = worker.call("frame", FRAME_SECONDS)
            if recorded:
                frame[key].append(seconds)
                share[key].append(seconds / utterance)
    return [
        Row("frame-10", "frame mode, 10 s", "s", frame),
        Row("frame-share", "frame mode, in times of utterance mode", "", share, "neither"),
    ]


def long_table(model: BenchModel, sides: Sequence[Side], seconds: float) -> Table:
    """Time and peak memory for one long clip, in fresh processes; FunASR is left out, which needs far too much."""
    took: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    own = [side for side in sides if side.dtype is not None]
    for side in own:
        with open_side(model, side) as worker:
            took[side.key] = [worker.call("utterance", seconds)]
            memory[side.key] = [peak_memory(worker.pid)]
    title = f"A clip of {seconds:g} s, in process"
    rows = [Row("long-time", "utterance", "s", took), Row("long-memory", "peak memory", "MB", memory)]
    return Table("long", title, {side.key: side.title for side in own}, {}, rows)


def preprocess_table(cuda: bool, rounds: int) -> Table:
    """Resampling and trimming against librosa."""
    columns = {"librosa": "librosa", "host": "service, numpy and soxr", "device": "service, torch on the CPU"}
    with ExitStack() as stack:
        workers = {
            "librosa": stack.enter_context(Worker(LibrosaSide)),
            "host": stack.enter_context(Worker(HostSide)),
            "device": stack.enter_context(Worker(DeviceSide, "cpu")),
        }
        if cuda:
            columns["device-cuda"] = "service, torch on CUDA"
            workers["device-cuda"] = stack.enter_context(Worker(DeviceSide, "cuda"))
        rows = [
            Row("resample", "mix down and resample to 16 kHz", "s", in_turn(workers, "resample", rounds=rounds)),
            Row("trim", "trim silence", "s", in_turn(workers, "trim", rounds=rounds)),
        ]
    baselines = dict.fromkeys(list(columns)[1:], "librosa")
    return Table("preprocess", "10 s of 44.1 kHz stereo, in process", columns, baselines, rows)


def agreement_table(name: str, model: BenchModel, sides: Sequence[Side], more: Path | None) -> Table:
    """How far the service's answers for real clips are from FunASR's on the same side, without trimming."""
    clips = list(real_clips(more))
    found = {}
    for side in sides:
        with open_side(model, side) as worker:
            found[side.key] = [worker.call("scores", samples) for _, samples in clips]
    own = {side.key: side for side in sides if side.baseline in found}
    difference, same, kappa, correlation = ({key: [0.0] for key in own} for _ in range(4))
    for key, side in own.items():
        ours, theirs = found[key], found[str(side.baseline)]
        pairs = list(zip(ours, theirs, strict=True))
        labels = np.array([(one[0].argmax(), other[0].argmax()) for one, other in pairs])
        difference[key] = [max(float(np.abs(one[0] - other[0]).max()) for one, other in pairs)]
        same[key] = [float(np.mean(labels[:, 0] == labels[:, 1]))]
        kappa[key] = [cohen_kappa(labels[:, 0], labels[:, 1])]
        frames = [np.concatenate([answer[1] for answer in answers]).ravel() for answers in (ours, theirs)]
        correlation[key] = [float(np.corrcoef(np.stack(frames))[0, 1])]
    rows = [
        Row(f"{name}-difference", "largest difference of a score", "", difference),
        Row(f"{name}-same", "share of clips with the same label", "", same, "more"),
        Row(f"{name}-kappa", "Cohen's kappa of the labels", "", kappa, "more"),
        Row(f"{name}-frames", "correlation of the frame scores", "", correlation, "more"),
    ]
    title = f"Agreement with FunASR, {name} model, {len(clips)} real clips"
    return Table(f"agreement-{name}", title, {key: side.title for key, side in own.items()}, {}, rows)


def cohen_kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Agreement of two lists of labels beyond chance; 1 where all are equal (Cohen 1960)."""
    observed = float(np.mean(one == other))
    chance = sum(float(np.mean(one == label) * np.mean(other == label)) for label in np.union1d(one, other))
    return 1.0 if observed == 1 else (observed - chance) / (1 - chance)
