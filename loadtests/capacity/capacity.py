"""The capacity of a server: `python -m loadtests.capacity --help`.

    python -m loadtests.capacity --url http://127.0.0.1:8000
    python -m loadtests.capacity --document docs/capacity.md -- --model iic/emotion2vec_plus_large --dtype int8

First a closed loop with more and more callers: the most audio answered per second is the capacity. Then an open loop at
shares of that rate: latency by utilization, and where refusals begin. Without `--url`, a server is started with the
flags after `--`.

The load generator runs on this machine. If the server does too, the generator takes a share of its cores.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtests.capacity.load_step import LoadStep
from loadtests.common import documents, machine
from loadtests.common.load_generator import LoadGenerator, Target, TimedResponse, status_counts
from loadtests.common.metrics_scrape import same_counts, scrape
from loadtests.common.server_process import model_description, service_url
from loadtests.common.subprocess_worker import SubprocessWorker

CALLERS = (1, 2, 4, 8, 16, 32)
SHARES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
CONNECTIONS = 128
"""More than the server accepts at a time, so that it can refuse requests."""

_MOST_REFUSED = 0.001
_WARM_UP = 2.0


@dataclass
class CapacityResult:
    """Results of a capacity test.

    Attributes:
        facts: the machine, and the model of the server.
        cores: number of cores of the server.
        p99: highest 99th percentile of the latency in seconds at a sustainable rate.
        closed, open: results of the closed loop, and of the open loop.
        counts_agree: whether the service has counted as many answers, status by status, as the callers have received.
    """

    facts: dict[str, str]
    cores: int
    p99: float
    closed: list[LoadStep] = field(default_factory=list)
    open: list[LoadStep] = field(default_factory=list)
    counts_agree: bool = False

    @property
    def best(self) -> LoadStep:
        """The step with the most audio answered."""
        return max(self.closed, key=lambda step: step.audio)

    @property
    def sustainable(self) -> LoadStep | None:
        """The highest rate with a P99 within the limit, no failures and almost no refusals; None if there is none."""
        fine = [step for step in self.open if step.p99 <= self.p99 and not step.failed and step.answered]
        return max(
            (step for step in fine if step.refused_share <= _MOST_REFUSED), key=lambda step: step.audio, default=None
        )


class CapacityMeasurement:
    """Sends load to a server, step by step.

    Args:
        generator: a `SubprocessWorker` with a `LoadGenerator`.
        target: the server.
        seconds: duration of each step.
        report: called with every step.

    Attributes:
        statuses: requests of all steps by status.
    """

    def __init__(
        self, generator: SubprocessWorker, target: Target, seconds: float, report: Callable[[LoadStep], None]
    ) -> None:
        self._generator = generator
        self._target = target
        self._seconds = seconds
        self._report = report
        self.statuses: Counter[int] = Counter()

    def closed(self, callers: int) -> LoadStep:
        """A closed loop with this number of callers."""
        name = f"{callers} callers" if callers > 1 else "1 caller"
        return self._step(name, self._generator.call("callers_for", self._target, callers, self._seconds))

    def open(self, rate: float, share: float) -> LoadStep:
        """An open loop with `rate` requests per second, which is this share of the capacity."""
        name = f"{rate:.3g} requests/s ({share:.0%})"
        return self._step(name, self._generator.call("open_loop", self._target, rate, self._seconds, CONNECTIONS))

    def warm_up(self) -> None:
        """Requests that are in no step."""
        self.statuses += status_counts(self._generator.call("callers_for", self._target, 2, _WARM_UP))

    def _step(self, name: str, responses: list[TimedResponse]) -> LoadStep:
        self.statuses += status_counts(responses)
        step = LoadStep.of(name, responses, self._seconds)
        self._report(step)
        return step


def measure(url: str, options: argparse.Namespace) -> CapacityResult:
    """Measure the capacity of a server."""
    result = CapacityResult({**machine.facts(), "model": model_description(url)}, options.cores, options.p99)
    before = scrape(url)
    with SubprocessWorker(LoadGenerator) as generator:
        measurement = CapacityMeasurement(
            generator, Target(url), options.seconds, lambda step: print(line(cells(step)), flush=True)
        )
        measurement.warm_up()
        result.closed += [measurement.closed(callers) for callers in options.callers]
        rate = result.best.requests
        result.open += [measurement.open(share * rate, share) for share in options.shares]
    result.counts_agree = same_counts(scrape(url).since(before), measurement.statuses)
    return result


def line(values: Sequence[str]) -> str:
    """One row of the table in the terminal."""
    return "  ".join(f"{value:>12}" if number else f"{value:<24}" for number, value in enumerate(values))


def cells(step: LoadStep) -> list[str]:
    """A step as cells of a table."""
    return [
        step.name,
        f"{step.audio:.3g}",
        f"{step.requests:.3g}",
        f"{step.p50:.3g} s",
        f"{step.p99:.3g} s",
        str(step.refused),
        str(step.failed),
    ]


HEAD = ("load", "audio s/s", "requests/s", "P50", "P99", "refused", "failed")


def markdown(result: CapacityResult) -> str:
    """The results for a document."""
    best, sustainable = result.best, result.sustainable
    audio = best.audio / max(1, best.requests) if best.answered else 0.0
    counted = "as the callers did"
    if not result.counts_agree:
        counted = "NOT as the callers did (other traffic, or lost requests)"
    found = [
        f"**Capacity: {best.audio:.3g} audio seconds per second** ({best.name}), "
        f"{best.audio / result.cores:.3g} per core with {result.cores}; "
        f"{best.requests:.3g} requests of {audio:.2g} s on average.",
        f"Sustainable with P99 within {result.p99:g} s: "
        + (f"{sustainable.audio:.3g} audio seconds per second." if sustainable else "none of the rates tried."),
        f"The service has counted {counted}.",
    ]
    facts = documents.fact_list(result.facts, "date", "revision", "CPU", "model")
    return (
        facts
        + "\n"
        + documents.table(HEAD, map(cells, (*result.closed, *result.open)))
        + "\n"
        + "\n".join(found)
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 if requests failed or counts differ."""
    options = parser().parse_args(arguments)
    with service_url(options.url, options.flags) as url:
        print(line(HEAD), flush=True)
        result = measure(url, options)
    text = markdown(result)
    print(text.partition("\n\n")[2].rpartition("|\n")[2])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    if options.document:
        documents.insert(options.document, "capacity", text)
    failed = sum(step.failed for step in (*result.closed, *result.open))
    return int(bool(failed) or not result.counts_agree)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtests.capacity", description="The capacity of a server.")
    made.add_argument("--url", help="of a running server [start one]")
    made.add_argument("--callers", type=int, nargs="+", default=CALLERS, help="numbers of callers to try")
    made.add_argument("--shares", type=float, nargs="*", default=SHARES, help="shares of the capacity to try")
    made.add_argument("--seconds", type=float, default=20.0, help="duration of each step [20]")
    made.add_argument("--p99", type=float, default=2.0, help="highest 99th percentile of the latency in seconds [2]")
    made.add_argument(
        "--cores", type=int, default=machine.cores(), help="number of cores, or GPUs, of the server [this machine's]"
    )
    made.add_argument("--json", type=Path, help="write all figures to this file")
    made.add_argument("--document", type=Path, help="write the table into this document, between its marks")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags of `serve`, for the server that is started")
    return made
