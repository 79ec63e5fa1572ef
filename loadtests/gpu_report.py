"""Everything that only a GPU can show, in one report: `make gpu-report`, or `python -m loadtests.gpu_report --help`.

    tests      what is marked for a GPU
    agreement  each precision against FunASR, with the embedded model
    starts     load and warm-up, first without kept programs and then with them
    speed      one clip and full batches, programs against none
    bench      the benchmark against FunASR
    soak       a server under mixed requests: failures, and memory

It writes gpu_report.json and gpu_report.md, and exits with 1 if anything has failed. `--device cpu --quick` tries out
the command itself where there is no GPU; its figures mean nothing.
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

from loadtests import gpu_steps, machine
from loadtests.checkpoint import BenchModel, default_work, model
from loadtests.gpu_soak import soak
from loadtests.sides import Side
from service.inference.backends.select import DtypeChoice

_ROOT = Path(__file__).resolve().parent.parent
_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}


@dataclass
class GpuReport:
    """One run.

    Args:
        device: where the service runs.
        quick: whether only to try everything out, with the embedded model.
        out: where results are written.
        work: where models are made and kept.
        more: a directory with more clips for the agreement.
    """

    device: Literal["cuda", "cpu"]
    quick: bool
    out: Path
    work: Path
    more: Path | None
    facts: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def tests(self) -> Any:
        """Run what is marked for a GPU; without one, they only show that they can be collected."""
        results = self.out / "gpu_tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junit-xml={results}", str(_ROOT / "tests")]
        done = subprocess.run(command, check=False, cwd=_ROOT)
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
        rows = gpu_steps.agreement(model("tiny", self.work), self.device, dtypes, self.more)
        for row in rows:
            if not row["largest difference of a score"] <= _TOLERANCE[row["precision"]]:
                self.problems.append(f"{row['precision']}, {row['clips']}: scores differ from FunASR's")
        return rows

    def starts(self) -> Any:
        """Time starts, and keep the programs for what follows."""
        choice: Literal["auto", "on"] = "on" if self.device == "cuda" else "auto"
        return gpu_steps.starts(self._model(), self.device, choice)

    def speed(self) -> Any:
        """Time clips."""
        lengths, rounds = ((1.0,), 2) if self.quick else ((1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0), 20)
        return gpu_steps.speed(self._model(), self.device, lengths, rounds)

    def bench(self) -> Any:
        """Run the benchmark, which writes its own report."""
        command = [sys.executable, "-m", "loadtests.bench", "--out", str(self.out), "--work", str(self.work)]
        command += ["--quick", "--no-int8", "--only", "preprocess"] if self.quick else []
        command += ["--clips", str(self.more)] if self.more else []
        if subprocess.run(command, check=False, cwd=_ROOT).returncode:
            self.problems.append("the benchmark failed")
        return (self.out / "bench.md").read_text(encoding="utf-8") if (self.out / "bench.md").is_file() else ""

    def soak(self) -> Any:
        """Serve mixed requests."""
        side = Side("soak", "service", self.device, "auto")
        served = self._model() if self.device == "cuda" else model("tiny", self.work)
        callers, requests = (2, 15) if self.quick else (16, 500)
        found = soak(served, side, callers=callers, requests=requests)
        self.problems += found.problems()
        return found.summary()

    def _model(self) -> BenchModel:
        if self.quick:
            return model("tiny", self.work)
        return gpu_steps.calmed(model("large", self.work), self.work)


STEPS: dict[str, Callable[[GpuReport], Any]] = {
    "tests": GpuReport.tests,
    "agreement": GpuReport.agreement,
    "starts": GpuReport.starts,
    "speed": GpuReport.speed,
    "bench": GpuReport.bench,
    "soak": GpuReport.soak,
}
"""In the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps and write the report; returns the exit status."""
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
        # For every process that is started here: the programs that one has compiled are there for the next.
        os.environ |= {
            "TORCHINDUCTOR_CACHE_DIR": str(Path(programs) / "inductor"),
            "TRITON_CACHE_DIR": str(Path(programs) / "triton"),
        }
        report = GpuReport(options.device, options.quick, options.out, options.work, options.clips)
        report.facts = {**machine.facts(), **({"GPU": gpu} if gpu else {}), "device": options.device}
        for name in options.only or STEPS:
            began = time.monotonic()
            print(f"{name} ...", flush=True)
            try:
                report.sections[name] = STEPS[name](report)
            except Exception as error:  # a step that fails must not take the others' results with it
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
    parts.append("".join(f"- **{problem}**\n" for problem in report.problems) or "No step has found a problem.\n")
    for name, found in report.sections.items():
        parts.append(f"## {name}\n")
        if isinstance(found, str):
            parts.append(found)
        elif isinstance(found, dict):
            parts.append("".join(f"- {key}: {value}\n" for key, value in found.items()))
        else:
            parts.append(_table(found))
    return "\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _gpu() -> str | None:
    """The GPU, its memory and driver; None where torch has none."""
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
        prog="python -m loadtests.gpu_report", description=(__doc__ or "").partition("\n")[0].partition(":")[0]
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where the service runs [cuda]")
    parser.add_argument("--quick", action="store_true", help="only try everything out, with the embedded model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where results are written")
    parser.add_argument("--work", type=Path, default=default_work(), help="where the models are made and kept (3 GB)")
    parser.add_argument("--clips", type=Path, help="a directory with more clips for the agreement")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    return parser


if __name__ == "__main__":
    sys.exit(main())
