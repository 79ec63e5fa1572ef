"""Measurements of whole processes: cold start, and callers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from loadtests.bench.bench_models import BenchModel
from loadtests.bench.implementations import Implementation
from loadtests.bench.processes import first_answer, serving
from loadtests.bench.tables import Row, Table
from loadtests.common.audio_clips import speech, wav
from loadtests.common.load_generator import LoadGenerator, Target, TimedResponse, status_counts
from loadtests.common.server_process import ServerProcess
from loadtests.common.subprocess_worker import SubprocessWorker
from loadtests.common.traffic_mix import LoadRequest

CLIP_SECONDS = 5.0
SHORT_SECONDS = 2.0
_WARM_UP = 3
_PAUSE = 0.2


def cold_start_row(
    key: str, title: str, model: BenchModel, implementations: Sequence[Implementation], rounds: int
) -> Row:
    """From the start of a process to its first answer, for a file; all files that it reads are in the page cache."""
    values: dict[str, list[float]] = {each.key: [] for each in implementations}
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "clip.wav"
        file.write_bytes(wav(speech(CLIP_SECONDS)))
        for recorded in [False] + [True] * rounds:
            for each in implementations:
                seconds = first_answer(model, each, file)
                if recorded:
                    values[each.key].append(seconds)
    return Row(key, title, "s", values)


def start_rows(model: BenchModel, implementations: Sequence[Implementation], starts: int) -> list[Row]:
    """The time until a new server is ready, and the first and the tenth request that it answers."""
    ready: dict[str, list[float]] = {each.key: [] for each in implementations}
    first: dict[str, list[float]] = {each.key: [] for each in implementations}
    tenth: dict[str, list[float]] = {each.key: [] for each in implementations}
    with SubprocessWorker(LoadGenerator) as generator:
        for _ in range(starts):
            for each in implementations:
                with serving(model, each) as server:
                    ready[each.key].append(server.start_seconds)
                    responses = _send(generator, server, CLIP_SECONDS, 1, 10)
                    first[each.key].append(responses[0].latency)
                    tenth[each.key].append(responses[9].latency)
    return [
        Row("ready", "server: process start to ready", "s", ready),
        Row("first", "first request after ready, 5 s", "s", first),
        Row("tenth", "tenth request after ready, 5 s", "s", tenth),
    ]


def load_rows(
    model: BenchModel, implementations: Sequence[Implementation], requests: Mapping[int, int], rounds: int
) -> tuple[list[Row], Table]:
    """Latency, throughput and memory under concurrent callers; and the time that the service adds to inference.

    Args:
        model: the model that is served.
        implementations: servers to compare.
        requests: number of requests in each round, by number of callers; it must contain one caller.
        rounds: number of rounds; in each, the servers are measured one after another.
    """
    loads = {}
    with ExitStack() as stack:
        servers = {each.key: stack.enter_context(serving(model, each)) for each in implementations}
        generator = stack.enter_context(SubprocessWorker(LoadGenerator))
        for callers, count in requests.items():
            loads[callers] = _in_rounds(generator, servers, CLIP_SECONDS, callers, count, rounds)
        memory = {key: [server.peak_memory()] for key, server in servers.items()}
    rows = []
    for callers, by_column in loads.items():
        title = f"{callers} callers" if callers > 1 else "one caller"
        latencies = {key: [_latencies(each) for each in of] for key, of in by_column.items()}
        rows += [_quantiles(f"p{q}-{callers}", f"P{q} of {title}, 5 s", q, latencies) for q in (50, 99)]
        seconds = {key: [CLIP_SECONDS * each for each in _rates(of)] for key, of in by_column.items()}
        rows.append(Row(f"throughput-{callers}", f"audio seconds per second, {title}", "", seconds, "more"))
    rows.append(Row("memory-server", "peak memory of the server after that load", "MB", memory))
    own = {each.key: each.title for each in implementations if each.dtype is not None}
    added = {key: [_without_inference(responses) for responses in loads[1][key]] for key in own}
    added_rows = [_quantiles(f"added-p{q}", f"P{q} of latency less inference", q, added) for q in (50, 99)]
    title = "What the service adds to the model's own time, one caller, WAV of 5 s"
    return rows, Table("overhead", title, own, {}, added_rows)


def embedded_row(
    model: BenchModel, implementations: Sequence[Implementation], callers: int, requests: int, rounds: int
) -> Row:
    """Requests per second with the embedded model, whose inference is so short that the rest of a request dominates."""
    with ExitStack() as stack:
        servers = {each.key: stack.enter_context(serving(model, each)) for each in implementations}
        generator = stack.enter_context(SubprocessWorker(LoadGenerator))
        loads = _in_rounds(generator, servers, SHORT_SECONDS, callers, requests, rounds)
    values = {key: _rates(found) for key, found in loads.items()}
    name = f"requests per second, embedded model, {callers} callers, {SHORT_SECONDS:g} s"
    return Row("embedded", name, "", values, "more")


def upload(seconds: float) -> LoadRequest:
    """A multipart form with one WAV file."""
    file = ("clip.wav", wav(speech(seconds)), "audio/wav")
    form = httpx.Request("POST", "http://127.0.0.1/recognize", files={"file": file})
    return LoadRequest("utterance", "", form.read(), form.headers["content-type"], seconds)


def _in_rounds(
    generator: SubprocessWorker,
    servers: Mapping[str, ServerProcess],
    seconds: float,
    callers: int,
    requests: int,
    rounds: int,
) -> dict[str, list[list[TimedResponse]]]:
    """Responses by column and round."""
    found: dict[str, list[list[TimedResponse]]] = {key: [] for key in servers}
    for server in servers.values():
        _send(generator, server, seconds, callers, max(_WARM_UP, callers))
    for _ in range(rounds):
        for key, server in servers.items():
            time.sleep(_PAUSE)
            found[key].append(_send(generator, server, seconds, callers, requests))
    return found


def _send(
    generator: SubprocessWorker, server: ServerProcess, seconds: float, callers: int, requests: int
) -> list[TimedResponse]:
    """Send the same clip again and again.

    Raises:
        RuntimeError: if a request is not answered with 200.
    """
    # Without a stored answer, a repeated request costs as much as a new one.
    target = Target(server.url, {"Cache-Control": "no-store"})
    responses: list[TimedResponse] = generator.call("callers_send", target, callers, requests, upload(seconds))
    statuses = status_counts(responses)
    if statuses.keys() != {200}:
        raise RuntimeError(f"requests were not all answered with 200; requests by status: {dict(statuses)}")
    return responses


def _latencies(responses: Sequence[TimedResponse]) -> list[float]:
    return [response.latency for response in responses]


def _rates(rounds: Sequence[Sequence[TimedResponse]]) -> list[float]:
    """Requests per second of each round, from its first request to its last answer."""
    return [
        len(each) / (max(one.finished for one in each) - min(one.finished - one.latency for one in each))
        for each in rounds
    ]


def _without_inference(responses: Sequence[TimedResponse]) -> list[float]:
    """Seconds of each request that were not spent in inference."""
    return [response.latency - response.stages["inference"] for response in responses]


def _quantiles(key: str, name: str, percent: int, values: Mapping[str, Sequence[Sequence[float]]]) -> Row:
    """A quantile in each round, and over all rounds."""
    by_round = {column: [float(np.percentile(each, percent)) for each in rounds] for column, rounds in values.items()}
    pooled = {column: float(np.percentile(np.concatenate(rounds), percent)) for column, rounds in values.items()}
    return Row(key, name, "s", by_round, pooled=pooled)
