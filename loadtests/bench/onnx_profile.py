"""Time of the CPU backend by ONNX operator: `python -m loadtests.bench.onnx_profile DIRECTORY`.

DIRECTORY is a prepared model. The time of each operator is the least of several runs, which reduces the influence of
other load on the machine; the sum of the table is therefore somewhat less than the time of one run.
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

from loadtests.common.audio_clips import speech
from loadtests.common.machine import cores
from service.model.manifest import Manifest
from service.model.onnx.inputs import Inputs, lay_out

_CONTROL_FLOW = ("Loop", "If")
"""Operators whose time contains that of other operators, which are counted by themselves."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.onnx_profile", description=__doc__.partition("\n")[0]
    )
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
    """The profiler events of each operator in each of `count` runs over `inputs`, after one run as warm-up."""
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
    """Number of calls in a run, and the least microseconds of all runs, by operator."""
    least: dict[str, tuple[int, int]] = {}
    for run in runs:
        calls: Counter[str] = Counter()
        spent: Counter[str] = Counter()
        for event in run:
            operator = event["args"]["op_name"]
            if operator not in _CONTROL_FLOW:
                calls[operator] += 1
                spent[operator] += event["dur"]
        for operator, microseconds in spent.items():
            before = least.get(operator)
            least[operator] = (calls[operator], min(microseconds, before[1]) if before else microseconds)
    return least


if __name__ == "__main__":
    main()
