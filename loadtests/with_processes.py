"""Rows that are measured from outside: cold start, and callers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from loadtests import clips
from loadtests.checkpoint import BenchModel
from loadtests.client import Client, Load, Request
from loadtests.processes import Server, first_answer, serving
from loadtests.sides import Side
from loadtests.tables import Row, Table
from loadtests.worker import Worker

CLIP_SECONDS = 5.0
SHORT_SECONDS = 2.0
_WARM_UP = 3
_PAUSE = 0.2


def cold_start_row(model: BenchModel, sides: Sequence[Side], rounds: int) -> Row:
    """From the start of a process to its first answer, for a file; the files of all sides are in the page cache."""
    values: dict[str, list[float]] = {side.key: [] for side in sides}
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "clip.wav"
        file.write_bytes(clips.wav(clips.speech(CLIP_SECONDS)))
        for recorded in [False] + [True] * rounds:
            for side in sides:
                seconds = first_answer(model, side, file)
                if recorded:
                    values[side.key].append(seconds)
    return Row("cold", "cold start: process start to first answer", "s", values)


def start_rows(model: BenchModel, sides: Sequence[Side], starts: int) -> list[Row]:
    """The first request that a fresh server answers, and the tenth."""
    first: dict[str, list[float]] = {side.key: [] for side in sides}
    tenth: dict[str, list[float]] = {side.key: [] for side in sides}
    with Worker(Client) as client:
        for _ in range(starts):
            for side in sides:
                with serving(model, side) as server:
                    load = client.call("load", upload(server.port, CLIP_SECONDS), 1, 10)
                    first[side.key].append(load.latencies[0])
                    tenth[side.key].append(load.latencies[9])
    return [
        Row("first", "first request after ready, 5 s", "s", first),
        Row("tenth", "tenth request after ready, 5 s", "s", tenth),
    ]


def load_rows(
    model: BenchModel, sides: Sequence[Side], requests: Mapping[int, int], rounds: int
) -> tuple[list[Row], Table]:
    """Latency, throughput and memory under concurrent callers; and what the service adds to the model's own time.

    Args:
        model: what is served.
        sides: servers to compare.
        requests: in each round, by number of callers; one caller must be among them.
        rounds: one server after the other in each.
    """
    loads = {}
    with ExitStack() as stack:
        servers = {side.key: stack.enter_context(serving(model, side)) for side in sides}
        client = stack.enter_context(Worker(Client))
        for callers, count in requests.items():
            loads[callers] = _in_turn(client, servers, CLIP_SECONDS, callers, count, rounds)
        memory = {key: [server.peak_memory()] for key, server in servers.items()}
    rows = []
    for callers, by_side in loads.items():
        title = f"{callers} callers" if callers > 1 else "one caller"
        rows += [_quantile_row(f"p{q}-{callers}", f"P{q} of {title}, 5 s", q, by_side) for q in (50, 99)]
        seconds = {key: [CLIP_SECONDS * each for each in _rates(loads)] for key, loads in by_side.items()}
        rows.append(Row(f"throughput-{callers}", f"audio seconds per second, {title}", "", seconds, "more"))
    rows.append(Row("memory-server", "peak memory of the server after that load", "MB", memory))
    own = {side.key: side.title for side in sides if side.dtype is not None}
    added = {key: [_added(load) for load in loads[1][key]] for key in own}
    added_rows = [_quantiles(f"added-p{q}", f"P{q} of latency less inference", q, added) for q in (50, 99)]
    title = "What the service adds to the model's own time, one caller, WAV of 5 s"
    return rows, Table("overhead", title, own, {}, added_rows)


def embedded_row(model: BenchModel, sides: Sequence[Side], callers: int, requests: int, rounds: int) -> Row:
    """Requests per second with the embedded model, where all but the model matters most."""
    with ExitStack() as stack:
        servers = {side.key: stack.enter_context(serving(model, side)) for side in sides}
        client = stack.enter_context(Worker(Client))
        loads = _in_turn(client, servers, SHORT_SECONDS, callers, requests, rounds)
    values = {key: _rates(found) for key, found in loads.items()}
    name = f"requests per second, embedded model, {callers} callers, {SHORT_SECONDS:g} s"
    return Row("embedded", name, "", values, "more")


def upload(port: int, seconds: float) -> Request:
    """A form with one WAV file."""
    file = ("clip.wav", clips.wav(clips.speech(seconds)), "audio/wav")
    form = httpx.Request("POST", "http://127.0.0.1/recognize", files={"file": file})
    return Request(port, "/recognize", form.read(), form.headers["content-type"])


def _in_turn(
    client: Worker, servers: Mapping[str, Server], seconds: float, callers: int, requests: int, rounds: int
) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {key: [] for key in servers}
    for server in servers.values():
        client.call("load", upload(server.port, seconds), callers, max(_WARM_UP, callers))
    for _ in range(rounds):
        for key, server in servers.items():
            time.sleep(_PAUSE)
            found[key].append(client.call("load", upload(server.port, seconds), callers, requests))
    return found


def _rates(loads: Sequence[Load]) -> list[float]:
    return [len(load.latencies) / load.seconds for load in loads]


def _added(load: Load) -> list[float]:
    """Seconds of each request that were not spent in the model."""
    return [latency - stages["inference"] for latency, stages in zip(load.latencies, load.stages, strict=True)]


def _quantile_row(key: str, name: str, percent: int, loads: Mapping[str, Sequence[Load]]) -> Row:
    return _quantiles(key, name, percent, {side: [load.latencies for load in of] for side, of in loads.items()})


def _quantiles(key: str, name: str, percent: int, values: Mapping[str, Sequence[Sequence[float]]]) -> Row:
    """A quantile in each round, and over all rounds."""
    by_round = {side: [float(np.percentile(each, percent)) for each in rounds] for side, rounds in values.items()}
    pooled = {side: float(np.percentile(np.concatenate(rounds), percent)) for side, rounds in values.items()}
    return Row(key, name, "s", by_round, pooled=pooled)
