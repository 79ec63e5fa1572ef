"""Measurements inside the processes of the implementations, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from loadtests.bench.bench_models import BenchModel
from loadtests.bench.implementations import (
    FunASRModel,
    Implementation,
    LibrosaPreprocessing,
    NumpyPreprocessing,
    ServiceModel,
    TorchPreprocessing,
)
from loadtests.bench.tables import Row, Table
from loadtests.common.audio_clips import recorded_clips
from loadtests.common.kappa import cohen_kappa
from loadtests.common.process_resources import peak_memory
from loadtests.common.subprocess_worker import SubprocessWorker

FRAME_SECONDS = 10.0
MEMORY_SECONDS = 30.0
SHORT_SECONDS = 1.0
SHORT_CLIPS = 5
_PAUSE = 0.2
"""Seconds between two implementations, in which idle threads of the last one stop waiting actively."""


def load(model: BenchModel, implementation: Implementation) -> SubprocessWorker:
    """Load the model in a new process."""
    if implementation.dtype is None:
        return SubprocessWorker(FunASRModel, model.hub, implementation)
    return SubprocessWorker(ServiceModel, model.prepared, implementation)


def in_turn(workers: Mapping[str, SubprocessWorker], method: str, *args: object, rounds: int) -> dict[str, list[float]]:
    """Call every worker once as warm-up, then in `rounds` rounds, one worker after the other in each round."""
    values: dict[str, list[float]] = {key: [] for key in workers}
    for recorded in [False] + [True] * rounds:
        for key, worker in workers.items():
            time.sleep(_PAUSE)
            seconds = worker.call(method, *args)
            if recorded:
                values[key].append(seconds)
    return values


def model_rows(
    model: BenchModel, implementations: Sequence[Implementation], rounds: Mapping[float, int]
) -> tuple[list[Row], dict[str, str]]:
    """Time for clips of several lengths, frame mode and peak memory; and a description of each implementation.

    Args:
        model: the model.
        implementations: the columns.
        rounds: number of rounds by length of the clip in seconds, ascending.
    """
    rows = []
    memory: dict[str, list[float]] = {}
    with ExitStack() as stack:
        workers = {each.key: stack.enter_context(load(model, each)) for each in implementations}
        described = {each.title: str(workers[each.key].call("describe")) for each in implementations}
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


def _frame_rows(workers: Mapping[str, SubprocessWorker], rounds: int) -> list[Row]:
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


def long_table(model: BenchModel, implementations: Sequence[Implementation], seconds: float) -> Table:
    """Time and peak memory for one long clip, in new processes; without FunASR, which needs too much memory."""
    took: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    own = [each for each in implementations if each.dtype is not None]
    for each in own:
        with load(model, each) as worker:
            took[each.key] = [worker.call("utterance", seconds)]
            memory[each.key] = [peak_memory(worker.pid)]
    title = f"A clip of {seconds:g} s, in process"
    rows = [Row("long-time", "utterance", "s", took), Row("long-memory", "peak memory", "MB", memory)]
    return Table("long", title, {each.key: each.title for each in own}, {}, rows)


def preprocess_table(cuda: bool, rounds: int) -> Table:
    """Resampling and trimming, compared with librosa."""
    columns = {"librosa": "librosa", "host": "service, numpy and soxr", "device": "service, torch on the CPU"}
    with ExitStack() as stack:
        workers = {
            "librosa": stack.enter_context(SubprocessWorker(LibrosaPreprocessing)),
            "host": stack.enter_context(SubprocessWorker(NumpyPreprocessing)),
            "device": stack.enter_context(SubprocessWorker(TorchPreprocessing, "cpu")),
        }
        if cuda:
            columns["device-cuda"] = "service, torch on CUDA"
            workers["device-cuda"] = stack.enter_context(SubprocessWorker(TorchPreprocessing, "cuda"))
        rows = [
            Row("resample", "mix down and resample to 16 kHz", "s", in_turn(workers, "resample", rounds=rounds)),
            Row("trim", "trim silence", "s", in_turn(workers, "trim", rounds=rounds)),
        ]
    baselines = dict.fromkeys(list(columns)[1:], "librosa")
    return Table("preprocess", "10 s of 44.1 kHz stereo, in process", columns, baselines, rows)


def agreement_table(
    name: str, model: BenchModel, implementations: Sequence[Implementation], more: Path | None
) -> Table:
    """Agreement of the service's answers with FunASR's on the same device, for recorded clips, without trimming."""
    clips = list(recorded_clips(more))
    found = {}
    for each in implementations:
        with load(model, each) as worker:
            found[each.key] = [worker.call("scores", samples) for _, samples in clips]
    own = {each.key: each for each in implementations if each.baseline in found}
    difference, same, kappa, correlation = ({key: [0.0] for key in own} for _ in range(4))
    for key, each in own.items():
        ours, theirs = found[key], found[str(each.baseline)]
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
    return Table(f"agreement-{name}", title, {key: each.title for key, each in own.items()}, {}, rows)
