"""The benchmark against FunASR: `make bench`, or `python -m loadtests.bench --help`.

    bench_models     the model, in hub layout for FunASR and prepared for the service
    implementations  what is compared; each runs in a process of its own (SubprocessWorker)
    in_process       measurements inside those processes
    with_processes   measurements of whole processes: programs, and servers with callers
    tables, goals    the values measured, and the performance goals
    bench_report     JSON and Markdown of the results
    chart            a bar chart of the ratios

Every value is measured in rounds: FunASR, service, FunASR, service, and so on. A ratio compares the two values of one
round, so that a temporary slowdown of the machine affects both.
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

from loadtests.bench import bench_report, goals, in_process, with_processes
from loadtests.bench.bench_models import BenchModel, ModelName, bench_model, default_cache
from loadtests.bench.flops import MatrixProducts, operations
from loadtests.bench.implementations import CPU_IMPLEMENTATIONS, CUDA_IMPLEMENTATIONS, Implementation
from loadtests.bench.tables import Report, Table
from loadtests.common import machine
from loadtests.common.paths import RESULTS
from loadtests.common.subprocess_worker import SubprocessWorker


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How much is measured.

    Attributes:
        model: which model.
        utterances: rounds by length of the clip in seconds.
        long: length of the long clip in seconds; None for none.
        preprocess: rounds of preprocessing.
        cold: rounds of cold starts.
        starts: starts of each server, each with ten requests.
        load: requests in each round by number of callers.
        load_rounds: rounds under load.
        embedded: callers, requests and rounds with the embedded model.
    """

    model: ModelName = "large"
    utterances: dict[float, int] = field(default_factory=lambda: {1: 15, 5: 9, 10: 7, 30: 5, 60: 2})
    long: float | None = 300.0
    preprocess: int = 30
    cold: int = 3
    starts: int = 3
    load: dict[int, int] = field(default_factory=lambda: {1: 50, 5: 25, 20: 40})
    load_rounds: int = 2
    embedded: tuple[int, int, int] = (8, 150, 3)


QUICK = BenchPlan(
    model="tiny",
    utterances={1: 3, 10: 2},
    long=None,
    preprocess=2,
    cold=1,
    starts=1,
    load={1: 5, 5: 10},
    embedded=(5, 20, 2),
)
"""Only tries everything out: the embedded model, and too few rounds for reliable figures."""


class Bench:
    """One run of the benchmark.

    Args:
        plan: how much is measured.
        implementations: the columns.
        planned: the model of the plan.
        tiny: the embedded model.
        clips: a directory with more clips for the agreement.
    """

    def __init__(
        self,
        plan: BenchPlan,
        implementations: Sequence[Implementation],
        planned: BenchModel,
        tiny: BenchModel,
        clips: Path | None,
    ) -> None:
        self._plan, self._model, self._tiny, self._clips = plan, planned, tiny, clips
        self._implementations = implementations
        baselines = {each.key: each.baseline for each in implementations if each.baseline}
        self._main = Table("main", "Against FunASR", {each.key: each.title for each in implementations}, baselines)
        self.report = Report(machine.facts(), [self._main])

    def describe_model(self) -> None:
        """Add the model to the report, and the least time that its matrix products need on this machine."""
        threads = machine.cores()
        with SubprocessWorker(MatrixProducts) as products:
            speed = products.call("gflops", threads)
        needed = operations(self._model.config, with_processes.CLIP_SECONDS)
        self.report.header["model"] = f"{self._plan.model}, {'embedded' if self._plan.model == 'tiny' else 'random'}"
        self.report.header["FP32 floor"] = (
            f"a clip of 5 s needs {needed:.3g} GFLOP of matrix products, this machine does {speed:.0f} GFLOPS "
            f"with {threads} threads: {needed / speed:.3g} s"
        )

    def in_process(self) -> None:
        """Clips of several lengths, frame mode, memory."""
        rows, described = in_process.model_rows(self._model, self._implementations, self._plan.utterances)
        self._main.rows.extend(rows)
        self.report.header.update(described)

    def cold(self) -> None:
        """From the start of a process to its first answer, with the planned and with the embedded model."""
        rows = {
            "cold": ("cold start: process start to first answer", self._model),
            "cold-embedded": ("the same with the embedded model", self._tiny),
        }
        for key, (title, model) in rows.items():
            row = with_processes.cold_start_row(key, title, model, self._implementations, self._plan.cold)
            self._main.rows.append(row)

    def starts(self) -> None:
        """The time until a server is ready, its first and its tenth request."""
        self._main.rows.extend(with_processes.start_rows(self._model, self._implementations, self._plan.starts))

    def load(self) -> None:
        """Concurrent callers over HTTP."""
        rows, overhead = with_processes.load_rows(
            self._model, self._implementations, self._plan.load, self._plan.load_rounds
        )
        self._main.rows.extend(rows)
        self.report.tables.append(overhead)

    def embedded(self) -> None:
        """Requests per second with the embedded model."""
        self._main.rows.append(with_processes.embedded_row(self._tiny, self._implementations, *self._plan.embedded))

    def preprocess(self) -> None:
        """Resampling and trimming."""
        cuda = any(each.device == "cuda" for each in self._implementations)
        self.report.tables.append(in_process.preprocess_table(cuda, self._plan.preprocess))

    def agreement(self) -> None:
        """Scores and labels for recorded clips."""
        models = {self._plan.model: self._model, "tiny": self._tiny}
        for name, each in models.items():
            self.report.tables.append(in_process.agreement_table(name, each, self._implementations, self._clips))

    def long(self) -> None:
        """One long clip, with the service only."""
        if self._plan.long is not None:
            self.report.tables.append(in_process.long_table(self._model, self._implementations, self._plan.long))


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
        print("No chart is drawn: it needs pip install ./client '.[bench]'", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = QUICK if options.quick else BenchPlan()
    if options.seconds:
        plan = replace(plan, utterances={length: plan.utterances[length] for length in options.seconds})
    cuda = _cuda()
    implementations = [
        replace(each, threads=options.funasr_threads)
        for each in (*CPU_IMPLEMENTATIONS, *(CUDA_IMPLEMENTATIONS if cuda else ()))
        if options.int8 or each.dtype != "int8"
    ]
    planned, tiny = (_make_model(name, options.cache) for name in (plan.model, "tiny"))
    bench = Bench(plan, implementations, planned, tiny, options.clips)
    if cuda:
        bench.report.header["GPU"] = cuda
    bench.describe_model()
    began = time.monotonic()
    for name in options.only or SECTIONS:
        print(f"[{time.monotonic() - began:5.0f} s] {name}", flush=True)
        SECTIONS[name](bench)
        if plan.model == "large":
            bench.report.goals[:] = goals.evaluate(bench.report)
        # After each section, so that no result is lost if a later one fails.
        bench.report.header["duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
        bench_report.save(bench.report, options.out / "bench.json")
        (options.out / "bench.md").write_text(bench_report.markdown(bench.report), encoding="utf-8")
    if chart:
        from loadtests.bench.chart import draw

        draw(bench.report.tables[0], bench.report.header["CPU"], options.out / "bench.png")
    print(bench_report.markdown(bench.report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="The benchmark against FunASR.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are written")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="cache directory of the models (2.5 GB)")
    parser.add_argument("--quick", action="store_true", help="only try everything out, with the embedded model")
    parser.add_argument("--no-int8", dest="int8", action="store_false", help="without INT8")
    parser.add_argument(
        "--funasr-threads",
        type=int,
        default=min(4, machine.cores()),
        metavar="N",
        help="threads of FunASR on the CPU; 0 for its own default [4, at most the number of cores]",
    )
    parser.add_argument("--clips", type=Path, help="a directory with more clips for the agreement")
    lengths = list(BenchPlan().utterances)
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        choices=lengths,
        help="lengths of clips [all]; FunASR is slow with long ones",
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    return parser


def _cuda() -> str | None:
    """Name of the GPU, None if torch finds none; in another process, so that torch is not loaded in this one."""
    program = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return answer.stdout.strip() or None


def _make_model(name: ModelName, cache: Path) -> BenchModel:
    """Make a model in another process, so that the memory for it is released."""
    subprocess.run([sys.executable, "-m", "loadtests.bench.bench_models", name, str(cache)], check=True)
    return bench_model(name, cache)
