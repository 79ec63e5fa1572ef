"""How much a server can take: `python -m loadtests.capacity --help`.

    python -m loadtests.capacity --url http://127.0.0.1:8000
    python -m loadtests.capacity --document docs/capacity.md -- --model iic/emotion2vec_plus_large --dtype int8

First more and more callers, each with its next request as soon as it has its answer: the most audio that is answered in
a second is the capacity. Then requests at random moments at shares of that rate: how long they wait for their answers
at which utilisation, and when refusals begin. Without `--url`, a server is started with the flags after `--`.

The callers run on this machine. Where the server does, too, they take their share of its cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from emotion2vec_client import Client

from loadtests import documents, machine
from loadtests.arrivals import Arrivals, Outcome, Target
from loadtests.counts import accepted_is_answered, scrape
from loadtests.processes import serving_with
from loadtests.steps import Step, statuses
from loadtests.worker import Worker

CALLERS = (1, 2, 4, 8, 16, 32)
SHARES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
CONNECTIONS = 128
"""More than a server works on at a time, so that it may refuse."""

_MOST_REFUSED = 0.001
_WARM_UP = 2.0


@dataclass
class Result:
    """What was found.

    Attributes:
        facts: the machine, and the model that answered.
        cores: that the server has.
        p99: seconds that 99 % of the answers may take.
        closed, open: measurements with callers, and at rates.
        accepted: whether the service has counted as many answers, status by status, as the callers got.
    """

    facts: dict[str, str]
    cores: int
    p99: float
    closed: list[Step] = field(default_factory=list)
    open: list[Step] = field(default_factory=list)
    accepted: bool = False

    @property
    def best(self) -> Step:
        """The step with the most audio answered."""
        return max(self.closed, key=lambda step: step.audio)

    @property
    def sustainable(self) -> Step | None:
        """The highest rate at which answers come in time and almost none is refused."""
        fine = [step for step in self.open if step.p99 <= self.p99 and not step.failed and step.answered]
        return max(
            (step for step in fine if step.refused_share <= _MOST_REFUSED), key=lambda step: step.audio, default=None
        )


class Measurement:
    """Loads a server, step by step.

    Args:
        arrivals: sends the requests; a `Worker` with `loadtests.arrivals.Arrivals` in it.
        seconds: that each step takes.
        said: told of every step.
    """

    def __init__(self, arrivals: Worker, seconds: float, said: Callable[[Step], None]) -> None:
        self._arrivals = arrivals
        self._seconds = seconds
        self._said = said
        self.statuses: Counter[int] = Counter()

    def closed(self, callers: int) -> Step:
        """What `callers` callers get."""
        name = f"{callers} callers" if callers > 1 else "1 caller"
        return self._step(name, self._arrivals.call("closed", callers, self._seconds))

    def open(self, rate: float, share: float) -> Step:
        """What becomes of `rate` requests a second."""
        name = f"{rate:.3g} requests/s ({share:.0%})"
        return self._step(name, self._arrivals.call("open", rate, self._seconds, CONNECTIONS))

    def warm_up(self) -> None:
        """A few requests of every kind, which no step counts."""
        self.statuses += statuses(self._arrivals.call("closed", 2, _WARM_UP))

    def _step(self, name: str, outcomes: list[Outcome]) -> Step:
        self.statuses += statuses(outcomes)
        step = Step.of(name, outcomes, self._seconds)
        self._said(step)
        return step


def measure(url: str, options: argparse.Namespace) -> Result:
    """Find out what a server can take."""
    result = Result({**machine.facts(), "model": described(url)}, options.cores, options.p99)
    before = scrape(url)
    with Worker(Arrivals, Target(url)) as arrivals:
        measurement = Measurement(arrivals, options.seconds, lambda step: print(line(step), flush=True))
        measurement.warm_up()
        result.closed += [measurement.closed(callers) for callers in options.callers]
        rate = result.best.requests
        result.open += [measurement.open(share * rate, share) for share in options.shares]
    result.accepted = accepted_is_answered(scrape(url).since(before), measurement.statuses)
    return result


def described(url: str) -> str:
    """The model that a server has."""
    with Client(url, api_key=os.environ.get("LOAD_API_KEY")) as client:
        first = client.models()[0]
    return f"{first['id']} ({first['revision']}), {first['dtype']} on {first['device']} with {first['backend']}"


def line(step: Step) -> str:
    """A step for the terminal."""
    return "  ".join(f"{cell:>12}" if number else f"{cell:<24}" for number, cell in enumerate(cells(step)))


def cells(step: Step) -> list[str]:
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


def markdown(result: Result) -> str:
    """What was found, for a document."""
    best, sustainable = result.best, result.sustainable
    audio = best.audio / max(1, best.requests) if best.answered else 0.0
    counted = "as the callers did" if result.accepted else "NOT as the callers did (other traffic, or lost requests)"
    found = [
        f"**Capacity: {best.audio:.3g} audio seconds per second** ({best.name}), "
        f"{best.audio / result.cores:.3g} per core with {result.cores}; "
        f"{best.requests:.3g} requests of {audio:.2g} s on average.",
        f"Sustainable with P99 within {result.p99:g} s: "
        + (f"{sustainable.audio:.3g} audio seconds per second." if sustainable else "none of the rates tried."),
        f"The service has counted {counted}.",
    ]
    facts = documents.listed(result.facts, "date", "revision", "CPU", "model")
    return (
        facts
        + "\n"
        + documents.table(HEAD, map(cells, (*result.closed, *result.open)))
        + "\n"
        + "\n".join(found)
        + "\n"
    )


@contextmanager
def server(url: str | None, flags: Sequence[str]) -> Iterator[str]:
    """The server at `url`, or one of its own."""
    with ExitStack() as stack:
        yield url or stack.enter_context(serving_with(flags)).url


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write; status 1 where requests failed or counts differ."""
    options = parser().parse_args(arguments)
    if options.url and options.flags:
        raise SystemExit("flags are for a server that is started; there is one already at the URL")
    with server(options.url, options.flags) as url:
        print(line_of_names(), flush=True)
        result = measure(url, options)
    text = markdown(result)
    print(text.partition("\n\n")[2].rpartition("|\n")[2])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    if options.document:
        documents.insert(options.document, "capacity", text)
    failed = sum(step.failed for step in (*result.closed, *result.open))
    return int(bool(failed) or not result.accepted)


def line_of_names() -> str:
    """The head of the table in the terminal."""
    return "  ".join(f"{name:>12}" if number else f"{name:<24}" for number, name in enumerate(HEAD))


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(prog="python -m loadtests.capacity", description="How much a server can take.")
    made.add_argument("--url", help="a server that runs [start one]")
    made.add_argument("--callers", type=int, nargs="+", default=CALLERS, help="numbers of callers to try")
    made.add_argument("--shares", type=float, nargs="*", default=SHARES, help="shares of the capacity to try")
    made.add_argument("--seconds", type=float, default=20.0, help="for each step [20]")
    made.add_argument("--p99", type=float, default=2.0, help="seconds that 99 %% of the answers may take [2]")
    made.add_argument(
        "--cores", type=int, default=machine.cores(), help="that the server has, or GPUs [this machine's]"
    )
    made.add_argument("--json", type=Path, help="write all figures there")
    made.add_argument("--document", type=Path, help="put the table there, between its marks")
    made.add_argument("flags", nargs="*", metavar="-- FLAGS", help="of `serve`, for the server that is started")
    return made


if __name__ == "__main__":
    sys.exit(main())
