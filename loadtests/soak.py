"""A server under load for long: `python -m loadtests.soak --help`.

    python -m loadtests.soak --seconds 600 --load 0.8 -- --model iic/emotion2vec_plus_large

Starts a server with the flags after `--`, finds how many requests it answers a second, and sends `--load` times as many
at random moments. Memory at the end must be within 5 % of that after the first minute, no request may fail, and no
file, thread or process may be left. Writes JSON with a sample of every second; status 1 where something is not so.
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

from loadtests import documents, machine
from loadtests.arrivals import Arrivals, Target
from loadtests.capacity import CONNECTIONS, described
from loadtests.counts import accepted_is_answered, scrape
from loadtests.holdings import Census, census, resident_memory
from loadtests.processes import serving_with
from loadtests.steps import Step, statuses
from loadtests.worker import Worker

GROWTH = 1.05
SETTLED = 60.0
"""Seconds after which memory counts; a quarter of the time in shorter runs."""

_CALLERS = 8
_PATIENCE = 60.0
_LEFT = "files, threads and processes"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server held, `second` seconds after the load began; memory in MB, its children's included."""

    second: float
    memory: float
    files: int
    threads: int
    children: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something is as it should be, and what was seen."""

    name: str
    good: bool
    seen: str


@dataclass
class Soak:
    """What was found.

    Attributes:
        facts: the machine, and the model that answered.
        load: share of the capacity that was sent.
        capacity: what callers without a pause got.
        step: what the load got.
        samples: one a second.
        verdicts: what it comes to.
    """

    facts: dict[str, str]
    load: float
    capacity: Step
    step: Step
    samples: list[Sample]
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        return all(verdict.good for verdict in self.verdicts)


class Sampler:
    """Looks at a process every second, from entering the context to its end.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> list[Sample]:
        self._thread.start()
        return self.samples

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        began = time.monotonic()
        while not self._over.wait(1.0):
            held = census(self._pid)
            memory = resident_memory(self._pid)
            self.samples.append(
                Sample(time.monotonic() - began, memory, held.files.total(), held.threads, len(held.children))
            )


def soak(seconds: float, load: float, flags: Sequence[str]) -> Soak:
    """Run a server under load for `seconds`."""
    with serving_with(flags) as server, Worker(Arrivals, Target(server.url)) as arrivals:
        calibration = min(30.0, max(5.0, seconds / 10))
        outcomes = arrivals.call("closed", _CALLERS, calibration)
        capacity = Step.of(f"{_CALLERS} callers", outcomes, calibration)
        before, counted = _idle(server.pid), scrape(server.url)
        print(f"{capacity.requests:.3g} requests/s answered; {load:.0%} of that for {seconds:g} s", flush=True)
        with Sampler(server.pid) as samples:
            outcomes = arrivals.call("open", load * capacity.requests, seconds, CONNECTIONS)
        step = Step.of(f"{load * capacity.requests:.3g} requests/s", outcomes, seconds)
        held = _idle(server.pid, before)
        gained = scrape(server.url).since(counted)
        facts = {**machine.facts(), "model": described(server.url)}
    found = Soak(facts, load, capacity, step, samples)
    found.verdicts += [
        answered(step),
        Verdict("counts", accepted_is_answered(gained, statuses(outcomes)), f"the service has counted {gained}"),
        memory(samples, seconds),
        Verdict(_LEFT, held.within(before), f"before: {before}; after: {held}"),
    ]
    return found


def answered(step: Step) -> Verdict:
    """Whether every request was answered, or refused in good form where the machine is busier than at the beginning."""
    seen = f"{step.answered} with 200, {step.refused} refused, {step.failed} failed; P99 {step.p99:.3g} s"
    return Verdict("answers", step.answered > 0 and not step.failed, seen)


def memory(samples: Sequence[Sample], seconds: float) -> Verdict:
    """Whether memory has stayed; medians over ten seconds, or a tenth of a short run, so that no single file counts."""
    settled, window = min(SETTLED, seconds / 4), min(10.0, seconds / 10)
    early = [each.memory for each in samples if settled <= each.second < settled + window]
    late = [each.memory for each in samples if seconds - window <= each.second < seconds]
    if not early or not late:
        return Verdict("memory", False, "there are too few samples")
    first, last = median(early), median(late)
    seen = f"{first:.1f} MB after {settled:g} s, {last:.1f} MB at the end: {last / first - 1:+.1%}"
    return Verdict("memory", last <= GROWTH * first, seen)


def _idle(pid: int, before: Census | None = None) -> Census:
    """What a process holds when its callers are gone: as little as before, or what it does not let go in a minute.

    Kept connections are closed after some seconds without a request.
    """
    end = time.monotonic() + _PATIENCE
    held = census(pid)
    while time.monotonic() < end:
        time.sleep(1.0)
        earlier, held = held, census(pid)
        if held.within(before) if before else held == earlier and held.files["socket"] <= _LISTENING:
            break
    return held


_LISTENING = 3
"""Sockets of a server that nobody is connected to: the one that it listens on, and the loop's own pair."""


def markdown(found: Soak) -> str:
    """What was found, for a document."""
    facts = {
        **found.facts,
        "load": f"{found.load:.0%} of {found.capacity.requests:.3g} requests/s, {found.step.seconds:g} s",
    }
    rows = [(verdict.name, verdict.seen, "passed" if verdict.good else "**failed**") for verdict in found.verdicts]
    head = ("what must be so", "what was seen", "")
    return documents.listed(facts, "date", "revision", "CPU", "model", "load") + "\n" + documents.table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write; status 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description="A server under load for long.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long [600]")
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity [0.8]")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "soak.json", help="the JSON file"
    )
    parser.add_argument("--document", type=Path, help="put the result there, between its marks")
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="of `serve`")
    options = parser.parse_args(arguments)
    found = soak(options.seconds, options.load, options.flags)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**asdict(found), "good": found.good}, indent=1) + "\n", encoding="utf-8")
    text = markdown(found)
    if options.document:
        documents.insert(options.document, "soak", text)
    print(text)
    return int(not found.good)


if __name__ == "__main__":
    sys.exit(main())
