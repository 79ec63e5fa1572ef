"""Where the time of the CPU backend goes, by ONNX operator: `python -m loadtests.operators DIRECTORY`.

DIRECTORY is a prepared model. Each operator's time is the least of several runs, so that what else the machine does
counts little; what the table adds up to is therefore somewhat less than a run takes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from loadtests.clips import speech
from loadtests.machine import cores
from service.model.manifest import Manifest
from service.model.onnx.inputs import Inputs, lay_out

_CONTAINERS = ("Loop", "If")
"""Operators whose time is that of the operators inside."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.operators", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="a prepared model")
    parser.add_argument("--dtype", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the clip")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(arguments)
    path = options.directory / f"model.{options.dtype}.onnx"
    inputs = lay_out([speech(options.seconds)], Manifest.read(options.directory).config)
    runs = profiled_runs(path, inputs, options.runs)
    print("| operator | calls | milliseconds |\n|---|---|---|")
    least = least_by_operator(runs)
    for operator, (calls, microseconds) in sorted(least.items(), key=lambda item: -item[1][1]):
        print(f"| {operator} | {calls} | {microseconds / 1000:.1f} |")
    total = sum(microseconds for _, microseconds in least.values())
    print(f"| all | {sum(calls for calls, _ in least.values())} | {total / 1000:.1f} |")


def profiled_runs(path: Path, inputs: Inputs, count: int) -> list[list[dict[str, Any]]]:
    """The events of each operator in each of `count` runs over `inputs`, after one that is left out."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(count + 1):
            session.run(None, inputs.tensors)
        events = json.loads(Path(session.end_profiling()).read_text())
    bounds = [(event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run"][1:]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return [[event for event in kernels if begin <= event["ts"] < end] for begin, end in bounds]


def least_by_operator(runs: Iterable[Sequence[dict[str, Any]]]) -> dict[str, tuple[int, int]]:
    """Calls in a run, and the least microseconds in one, by operator."""
    least: dict[str, tuple[int, int]] = {}
    for run in runs:
        calls: Counter[str] = Counter()
        spent: Counter[str] = Counter()
        for event in run:
            operator = event["args"]["op_name"]
            if operator not in _CONTAINERS:
                calls[operator] += 1
                spent[operator] += event["dur"]
        for operator, microseconds in spent.items():
            before = least.get(operator)
            least[operator] = (calls[operator], min(microseconds, before[1]) if before else microseconds)
    return least


if __name__ == "__main__":
    main()
