"""Runs a Python command with the kernels that ONNX Runtime chooses on processors without VNNI.

    python -m loadtests.accuracy.without_vnni avx2 -m pytest tests/model/onnx/test_int8.py
    python -m loadtests.accuracy.without_vnni avx512 -m loadtests.accuracy.parity CHECKPOINT AUDIO --backend onnx-int8

A processor with VNNI multiplies bytes exactly, so that nothing measured on it tells how older ones answer. ONNX Runtime
asks the processor what it can do and has no option to choose other kernels. Therefore the command runs with a copy of
the library in which the branch for AVX-512 (`avx2`), or only that for its VNNI (`avx512`), is never taken. The copy is
made anew each time and removed afterwards. Known for the build of ONNX Runtime 1.32.0 for x86-64 Linux; others are
refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime

_BRANCHES = {
    # test r10d, AVX512F; je +14; mov rax, r8; not rax; test al, 0xe0; and then: je to the kernels for AVX-512
    "avx2": ("41f7c200000100 740e 4c89c0 48f7d0 a8e0", "909090909090"),
    # lea rax, [a kernel]; and then: and edi, AVX512_VNNI, whose result decides about the kernels for VNNI
    "avx512": ("488d05a90a2100", "81e700000000"),
}
"""The instructions before the one to replace, which decides about kernels, and its replacement."""


class UnknownBuild(Exception):
    """The library is not the build whose branches are known."""


def copy_without(kernels: str, target: Path) -> None:
    """Copy ONNX Runtime's package into `target`, so that it uses the kernels for `avx2` or `avx512` without VNNI.

    Raises:
        UnknownBuild: if the branch is not found exactly once.
    """
    package = target / "onnxruntime"
    shutil.copytree(Path(onnxruntime.__file__).parent, package)
    library = next((package / "capi").glob("onnxruntime_pybind11_state*.so"))
    code = library.read_bytes()
    before, replacement = map(bytes.fromhex, _BRANCHES[kernels])
    if (count := code.count(before)) != 1:
        raise UnknownBuild(
            f"the branch was found {count} times in {library.name} of onnxruntime {onnxruntime.__version__}"
        )
    position = code.index(before) + len(before)
    library.write_bytes(code[:position] + replacement + code[position + len(replacement) :])


def main() -> int:
    """Run the command; the status is the command's."""
    if len(sys.argv) < 3 or sys.argv[1] not in _BRANCHES:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        copy_without(sys.argv[1], Path(directory))
        path = os.pathsep.join(filter(None, [directory, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([sys.executable, *sys.argv[2:]], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
