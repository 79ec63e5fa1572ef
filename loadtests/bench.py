"""The benchmark against FunASR: `make bench`, or `python -m loadtests.bench --help`.

    checkpoint  the model, in hub layout for FunASR and prepared for the service
    sides       what is compared; each side lives in a process of its own (worker)
    in_process  rows measured inside those processes
    with_processes  rows measured from outside: programs, and servers (processes) under callers (client)
    tables, goals   what was found, and what was aimed at
    report, chart   JSON, Markdown and a picture of it

Every value is measured in rounds: FunASR, service, FunASR, service, and so on. A ratio is that of the two values of one
round, so that what slows the machine for a while slows both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from loadtests import goals, in_process, machine, report, with_processes
from loadtests.checkpoint import BenchModel, ModelName, default_work, model
from loadtests.sides import CPU_SIDES, CUDA_SIDES, Side
from loadtests.tables import Report, Table
from loadtests.worker import Worker


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: rounds by length of the clip in seconds, and requests in each round by callers."""

    model: ModelName = "large"
    utterances: dict[float, int] = field(default_factory=lambda: {1: 15, 5: 9, 10: 7, 30: 5, 60: 2})
    long: float | None = 300.0
    preprocess: int = 30
    cold: int = 3
    starts: int = 3
    load: dict[int, int] = field(default_factory=lambda: {1: 50, 5: 25, 20: 40})
    load_rounds: int = 2
    embedded: tuple[int, int, int] = (8, 150, 3)


QUICK = Plan(
    model="tiny",
    utterances={1: 3, 10: 2},
    long=None,
    preprocess=2,
    cold=1,
    starts=1,
    load={1: 5, 5: 10},
    embedded=(5, 20, 2),
)
"""Only shows that everything works: the embedded model, and far too few rounds to rely on."""


class Bench:
    """One run.

    Args:
        plan: how much is measured.
        sides: what is compared.
        large: the model of the plan.
        tiny: the embedded model.
        clips: a directory with more clips for the agreement.
    """

    def __init__(
        self, plan: Plan, sides: Sequence[Side], large: BenchModel, tiny: BenchModel, clips: Path | None
    ) -> None:
        self._plan, self._sides, self._model, self._tiny, self._clips = plan, sides, large, tiny, clips
        baselines = {side.key: side.baseline for side in sides if side.baseline}
        self._main = Table("main", "Against FunASR", {side.key: side.title for side in sides}, baselines)
        self.report = Report(machine.facts(), [self._main])

    def describe_model(self) -> None:
        """Say in the report what runs, and how fast it could run at best."""
        threads = machine.cores()
        with Worker(machine.MatrixProducts) as products:
            speed = products.call("gflops", threads)
        work = machine.operations(self._model.config, with_processes.CLIP_SECONDS)
        self.report.header["model"] = f"{self._plan.model}, {'embedded' if self._plan.model == 'tiny' else 'random'}"
        self.report.header["FP32 floor"] = (
            f"a clip of 5 s needs {work:.3g} GFLOP of matrix products, this machine does {speed:.0f} GFLOPS "
            f"with {threads} threads: {work / speed:.3g} s"
        )

    def in_process(self) -> None:
        """Clips of several lengths, frame mode, memory."""
        rows, described = in_process.model_rows(self._model, self._sides, self._plan.utterances)
        self._main.rows.extend(rows)
        self.report.header.update(described)

    def cold(self) -> None:
        """From the start of a process to its first answer."""
        self._main.rows.append(with_processes.cold_start_row(self._model, self._sides, self._plan.cold))

    def starts(self) -> None:
        """The first and the tenth request."""
        self._main.rows.extend(with_processes.start_rows(self._model, self._sides, self._plan.starts))

    def load(self) -> None:
        """Concurrent callers over HTTP."""
        rows, overhead = with_processes.load_rows(self._model, self._sides, self._plan.load, self._plan.load_rounds)
        self._main.rows.extend(rows)
        self.report.tables.append(overhead)

    def embedded(self) -> None:
        """Requests per second with the embedded model."""
        self._main.rows.append(with_processes.embedded_row(self._tiny, self._sides, *self._plan.embedded))

    def preprocess(self) -> None:
        """Resampling and trimming."""
        cuda = any(side.device == "cuda" for side in self._sides)
        self.report.tables.append(in_process.preprocess_table(cuda, self._plan.preprocess))

    def agreement(self) -> None:
        """Scores and labels for real clips."""
        models = {self._plan.model: self._model, "tiny": self._tiny}
        for name, each in models.items():
            self.report.tables.append(in_process.agreement_table(name, each, self._sides, self._clips))

    def long(self) -> None:
        """One long clip, the service alone."""
        if self._plan.long is not None:
            self.report.tables.append(in_process.long_table(self._model, self._sides, self._plan.long))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "model": Bench.in_process,
    "cold": Bench.cold,
    "starts": Bench.starts,
    "load": Bench.load,
    "embedded": Bench.embedded,
    "preprocess": Bench.preprocess,
    "agreement": Bench.agreement,
    "long": Bench.long,
}
"""In the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write bench.json, bench.md and bench.png."""
    options = _parser().parse_args(arguments)
    chart = find_spec("matplotlib") is not None
    if not chart:
        print("There will be no chart: it needs pip install 'emotion2vec-service[bench]'", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = replace(plan, utterances={length: plan.utterances[length] for length in options.seconds})
    cuda = _cuda()
    sides = [
        replace(side, threads=options.funasr_threads)
        for side in (*CPU_SIDES, *(CUDA_SIDES if cuda else ()))
        if options.int8 or side.dtype != "int8"
    ]
    bench = Bench(plan, sides, _made(plan.model, options.work), _made("tiny", options.work), options.clips)
    if cuda:
        bench.report.header["GPU"] = cuda
    bench.describe_model()
    began = time.monotonic()
    for name in options.only or SECTIONS:
        print(f"[{time.monotonic() - began:5.0f} s] {name}", flush=True)
        SECTIONS[name](bench)
        if plan.model == "large":
            bench.report.goals[:] = goals.evaluate(bench.report)
        # After each section, so that what was measured is never lost.
        bench.report.header["duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
        report.save(bench.report, options.out / "bench.json")
        (options.out / "bench.md").write_text(report.markdown(bench.report), encoding="utf-8")
    if chart:
        from loadtests.chart import draw

        draw(bench.report.tables[0], bench.report.header["CPU"], options.out / "bench.png")
    print(report.markdown(bench.report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="The benchmark against FunASR.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where results are written")
    parser.add_argument("--work", type=Path, default=default_work(), help="where the models are made and kept (2.5 GB)")
    parser.add_argument("--quick", action="store_true", help="only try everything out, with the embedded model")
    parser.add_argument("--no-int8", dest="int8", action="store_false", help="leave INT8 out")
    parser.add_argument(
        "--funasr-threads",
        type=int,
        default=min(4, machine.cores()),
        metavar="N",
        help="threads of FunASR on the CPU; 0 leaves them to it [its default of 4, but no more than cores]",
    )
    parser.add_argument("--clips", type=Path, help="a directory with more clips for the agreement")
    lengths = list(Plan().utterances)
    parser.add_argument(
        "--seconds", type=float, nargs="+", choices=lengths, help="lengths of clips [all]; long ones take FunASR long"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    return parser


def _cuda() -> str | None:
    """The GPU's name, None where torch has none; asked in another process, since torch would stay in this one."""
    program = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return answer.stdout.strip() or None


def _made(name: ModelName, work: Path) -> BenchModel:
    """Make a model in another process, so that its memory is free again."""
    subprocess.run([sys.executable, "-m", "loadtests.checkpoint", name, str(work)], check=True)
    return model(name, work)


if __name__ == "__main__":
    main()
