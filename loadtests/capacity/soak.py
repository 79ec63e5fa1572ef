"""A server under load for a long time: `python -m loadtests.capacity.soak --help`.

    python -m loadtests.capacity.soak --seconds 600 --load 0.8 -- --model iic/emotion2vec_plus_large

Starts a server with the flags after `--`, measures how many requests it answers per second, and sends `--load` times as
many in an open loop. Memory at the end must be within 5 % of that after the first minute, no request may fail, and no
file, thread or process may be leaked. It writes JSON with a sample of every second; status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from loadtests.capacity.capacity import CONNECTIONS
from loadtests.capacity.load_step import LoadStep
from loadtests.common import documents, machine
from loadtests.common.load_generator import LoadGenerator, Target, status_counts
from loadtests.common.metrics_scrape import same_counts, scrape
from loadtests.common.paths import RESULTS
from loadtests.common.process_resources import ProcessResources, process_resources, resident_memory
from loadtests.common.server_process import model_description, start_service
from loadtests.common.subprocess_worker import SubprocessWorker

GROWTH = 1.05
SETTLED = 60.0
"""Seconds after which memory is compared; a quarter of the time in shorter runs."""

_CALLERS = 8
_IDLE_TIMEOUT = 60.0
_LEAKS = "files, threads and processes"


@dataclass(frozen=True, slots=True)
class ResourceSample:
    """Resources of the server `second` seconds after the load began; memory in MB, with that of its children."""

    second: float
    memory: float
    files: int
    threads: int
    children: int


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement: whether it is met, and what was observed."""

    name: str
    passed: bool
    observed: str


@dataclass
class SoakResult:
    """Results of a soak test.

    Attributes:
        facts: the machine, and the model of the server.
        load: the load, as a share of the capacity.
        capacity: results of the closed loop that measured the capacity.
        step: results under the load.
        samples: one per second.
        checks: the requirements.
    """

    facts: dict[str, str]
    load: float
    capacity: LoadStep
    step: LoadStep
    samples: list[ResourceSample]
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all requirements are met."""
        return all(check.passed for check in self.checks)


class ResourceSampler:
    """A context manager that samples the resources of a process every second; its value is the list of samples.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self.samples: list[ResourceSample] = []
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> list[ResourceSample]:
        self._thread.start()
        return self.samples

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        began = time.monotonic()
        while not self._over.wait(1.0):
            held = process_resources(self._pid)
            memory = resident_memory(self._pid)
            self.samples.append(
                ResourceSample(time.monotonic() - began, memory, held.files.total(), held.threads, len(held.children))
            )


def soak(seconds: float, load: float, flags: Sequence[str]) -> SoakResult:
    """Run a server under load for `seconds`."""
    with start_service(flags) as server, SubprocessWorker(LoadGenerator) as generator:
        target = Target(server.url)
        calibration = min(30.0, max(5.0, seconds / 10))
        responses = generator.call("callers_for", target, _CALLERS, calibration)
        capacity = LoadStep.of(f"{_CALLERS} callers", responses, calibration)
        before, counted = _idle(server.pid), scrape(server.url)
        rate = load * capacity.requests
        print(f"{capacity.requests:.3g} requests/s answered; {load:.0%} of that for {seconds:g} s", flush=True)
        with ResourceSampler(server.pid) as samples:
            responses = generator.call("open_loop", target, rate, seconds, CONNECTIONS)
        step = LoadStep.of(f"{rate:.3g} requests/s", responses, seconds)
        after = _idle(server.pid, before)
        gained = scrape(server.url).since(counted)
        facts = {**machine.facts(), "model": model_description(server.url)}
    found = SoakResult(facts, load, capacity, step, samples)
    found.checks += [
        answered(step),
        Check("counts", same_counts(gained, status_counts(responses)), f"the service has counted {gained}"),
        memory(samples, seconds),
        Check(_LEAKS, after.within(before), f"before: {before}; after: {after}"),
    ]
    return found


def answered(step: LoadStep) -> Check:
    """No request may fail; refusals are allowed, since the machine may have become slower than in the calibration."""
    observed = f"{step.answered} with 200, {step.refused} refused, {step.failed} failed; P99 {step.p99:.3g} s"
    return Check("answers", step.answered > 0 and not step.failed, observed)


def memory(samples: Sequence[ResourceSample], seconds: float) -> Check:
    """Memory may grow by 5 %: medians over ten seconds, or a tenth of a short run, so that no single file decides."""
    settled, window = min(SETTLED, seconds / 4), min(10.0, seconds / 10)
    early = [each.memory for each in samples if settled <= each.second < settled + window]
    late = [each.memory for each in samples if seconds - window <= each.second < seconds]
    if not early or not late:
        return Check("memory", False, "too few samples")
    first, last = median(early), median(late)
    observed = f"{first:.1f} MB after {settled:g} s, {last:.1f} MB at the end: {last / first - 1:+.1%}"
    return Check("memory", last <= GROWTH * first, observed)


def _idle(pid: int, before: ProcessResources | None = None) -> ProcessResources:
    """Resources of a process when it is idle: as few as `before`, or what it still has after a minute.

    The server closes connections after some seconds without a request.
    """
    end = time.monotonic() + _IDLE_TIMEOUT
    held = process_resources(pid)
    while time.monotonic() < end:
        time.sleep(1.0)
        earlier, held = held, process_resources(pid)
        if held.within(before) if before else held == earlier and held.files["socket"] <= _LISTENING:
            break
    return held


_LISTENING = 3
"""Sockets of a server without connections: the listening one, and the event loop's pair."""


def markdown(found: SoakResult) -> str:
    """The results for a document."""
    facts = {
        **found.facts,
        "load": f"{found.load:.0%} of {found.capacity.requests:.3g} requests/s, {found.step.seconds:g} s",
    }
    rows = [(check.name, check.observed, "passed" if check.passed else "**failed**") for check in found.checks]
    head = ("what must be so", "what was seen", "")
    return documents.fact_list(facts, "date", "revision", "CPU", "model", "load") + "\n" + documents.table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write; status 1 if a check fails."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.capacity.soak", description="A server under load for a long time."
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="duration of the load [600]")
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity [0.8]")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json", help="the JSON file")
    parser.add_argument("--document", type=Path, help="write the result into this document, between its marks")
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags of `serve`")
    options = parser.parse_args(arguments)
    found = soak(options.seconds, options.load, options.flags)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**asdict(found), "passed": found.passed}, indent=1) + "\n", encoding="utf-8")
    text = markdown(found)
    if options.document:
        documents.insert(options.document, "soak", text)
    print(text)
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main())
