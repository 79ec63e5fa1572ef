"""The report of everything that needs a GPU: `make gpu-report`, or `python -m loadtests.gpu --help`.

    tests      the tests that are marked for a GPU
    agreement  scores of each precision compared with FunASR's, with the embedded model
    starts     load and warm-up, first with an empty cache of compiled programs and then with that cache
    speed      one clip and full batches, with and without compiled programs
    bench      the benchmark against FunASR
    soak       a server under mixed requests: failures, and memory

It writes gpu_report.json and gpu_report.md, and exits with 1 if a section has found a problem. `--device cpu --quick`
tries out the command without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from loadtests.bench.bench_models import BenchModel, bench_model, default_cache
from loadtests.bench.implementations import Implementation
from loadtests.common import documents, machine
from loadtests.common.paths import RESULTS, ROOT
from loadtests.gpu import gpu_measurements
from loadtests.gpu.gpu_soak import soak
from service.inference.backends.select import DtypeChoice

_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}


@dataclass
class GpuReport:
    """One run; each method is a section of the report and returns its results.

    Attributes:
        device: where the service runs.
        quick: only try everything out, with the embedded model.
        out: directory of the results.
        cache: directory of the models.
        more: a directory with more clips for the agreement.
        facts: the machine, and the duration of each section.
        sections: results by section.
        problems: what has failed.
    """

    device: Literal["cuda", "cpu"]
    quick: bool
    out: Path
    cache: Path
    more: Path | None
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def tests(self) -> Any:
        """Run the tests that are marked for a GPU; without a GPU they are all skipped."""
        results = self.out / "gpu_tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junit-xml={results}", str(ROOT / "tests")]
        done = subprocess.run(command, check=False, cwd=ROOT)
        (suite,) = ElementTree.parse(results).getroot().iter("testsuite")
        counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
        if done.returncode or counts["failures"] or counts["errors"]:
            self.problems.append(f"tests failed: {counts['failures'] + counts['errors']} of {counts['tests']}")
        if self.device == "cuda" and counts["skipped"]:
            self.problems.append(f"{counts['skipped']} tests were skipped although there is a GPU")
        return [counts]

    def agreement(self) -> Any:
        """Compare scores with FunASR's."""
        dtypes: tuple[DtypeChoice, ...] = ("auto", "fp16", "bf16", "fp32") if self.device == "cuda" else ("fp32",)
        rows = gpu_measurements.agreement(bench_model("tiny", self.cache), self.device, dtypes, self.more)
        for row in rows:
            if not row["largest difference of a score"] <= _TOLERANCE[row["precision"]]:
                self.problems.append(f"{row['precision']}, {row['clips']}: scores differ from FunASR's")
        return rows

    def starts(self) -> Any:
        """Time starts; the sections after this one use the compiled programs of it."""
        choice: Literal["auto", "on"] = "on" if self.device == "cuda" else "auto"
        return gpu_measurements.starts(self._model(), self.device, choice)

    def speed(self) -> Any:
        """Time clips and batches."""
        lengths, rounds = ((1.0,), 2) if self.quick else ((1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0), 20)
        return gpu_measurements.speed(self._model(), self.device, lengths, rounds)

    def bench(self) -> Any:
        """Run the benchmark, which writes its own report."""
        command = [sys.executable, "-m", "loadtests.bench", "--out", str(self.out), "--cache", str(self.cache)]
        command += ["--quick", "--no-int8", "--only", "preprocess"] if self.quick else []
        command += ["--clips", str(self.more)] if self.more else []
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            self.problems.append("the benchmark failed")
        return (self.out / "bench.md").read_text(encoding="utf-8") if (self.out / "bench.md").is_file() else ""

    def soak(self) -> Any:
        """Send mixed requests to a server."""
        implementation = Implementation("soak", "service", self.device, "auto")
        served = self._model() if self.device == "cuda" else bench_model("tiny", self.cache)
        callers, requests = (2, 15) if self.quick else (16, 500)
        result = soak(served, implementation, callers=callers, requests=requests)
        self.problems += result.problems()
        return result.summary()

    def _model(self) -> BenchModel:
        if self.quick:
            return bench_model("tiny", self.cache)
        return gpu_measurements.with_scaled_head(bench_model("large", self.cache), self.cache)


SECTIONS: dict[str, Callable[[GpuReport], Any]] = {
    "tests": GpuReport.tests,
    "agreement": GpuReport.agreement,
    "starts": GpuReport.starts,
    "speed": GpuReport.speed,
    "bench": GpuReport.bench,
    "soak": GpuReport.soak,
}
"""In the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections and write the report; returns the exit status."""
    options = _parser().parse_args(arguments)
    gpu = _gpu()
    if options.device == "cuda" and gpu is None:
        print(
            "torch finds no GPU that it can use; check `nvidia-smi`, and that torch was installed with CUDA.\n"
            "`--device cpu --quick` tries out this command without one.",
            file=sys.stderr,
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="programs-", dir=options.out) as programs:
        # For every process started here: each uses the programs that an earlier one has compiled.
        os.environ |= {
            "TORCHINDUCTOR_CACHE_DIR": str(Path(programs) / "inductor"),
            "TRITON_CACHE_DIR": str(Path(programs) / "triton"),
        }
        report = GpuReport(options.device, options.quick, options.out, options.cache, options.clips)
        report.facts = {**machine.facts(), **({"GPU": gpu} if gpu else {}), "device": options.device}
        for name in options.only or SECTIONS:
            began = time.monotonic()
            print(f"{name} ...", flush=True)
            try:
                report.sections[name] = SECTIONS[name](report)
            except Exception as error:  # the results of other sections are still wanted
                report.problems.append(f"{name}: {type(error).__name__}: {error}")
            report.facts[f"{name} took"] = f"{time.monotonic() - began:.0f} s"
            _write(report)
    print(markdown(report))
    return int(bool(report.problems))


def _write(report: GpuReport) -> None:
    values = {"facts": report.facts, "problems": report.problems, **report.sections}
    (report.out / "gpu_report.json").write_text(
        json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (report.out / "gpu_report.md").write_text(markdown(report), encoding="utf-8")


def markdown(report: GpuReport) -> str:
    """The whole report, problems first."""
    parts = (
        ["# Report on a GPU\n"] if not report.quick else ["# Trial of the report on a GPU; no figure means anything\n"]
    )
    parts.append("".join(f"- {name}: {value}\n" for name, value in report.facts.items()))
    parts.append("".join(f"- **{problem}**\n" for problem in report.problems) or "No section has found a problem.\n")
    for name, found in report.sections.items():
        parts.append(f"## {name}\n")
        if isinstance(found, str):
            parts.append(found)
        elif isinstance(found, dict):
            parts.append("".join(f"- {key}: {value}\n" for key, value in found.items()))
        else:
            parts.append(documents.table(list(found[0]), ([_cell(value) for value in row.values()] for row in found)))
    return "\n".join(parts)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _gpu() -> str | None:
    """The GPU, its memory and driver; None if torch finds no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    memory = properties.total_memory / 2**30
    return f"{properties.name}, {memory:.0f} GiB, driver {driver}, CUDA {torch.version.cuda}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.gpu", description="The report of everything that needs a GPU."
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where the service runs [cuda]")
    parser.add_argument("--quick", action="store_true", help="only try everything out, with the embedded model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results are written")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="cache directory of the models (3 GB)")
    parser.add_argument("--clips", type=Path, help="a directory with more clips for the agreement")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    return parser
