"""INT8 with the kernels of processors without VNNI, whatever this processor has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.accuracy.without_vnni import UnknownBuild, copy_without
from loadtests.common.paths import ROOT

pytest.importorskip("onnx")
pytestmark = pytest.mark.torch  # onnx comes with that extra

_SATURATES = """
import numpy as np
from service.model.onnx import int8
from tests.model.onnx.test_int8 import product
int8.LARGEST_PAIR = 254  # weights of up to 127, without a limit for neighbours
matrix = np.ones((64, 16), np.float32)
print(product(matrix, np.full((3, 64), 127, np.float32))[0].max().round())
"""


@pytest.mark.parametrize("kernels", ["avx2", "avx512"])
def test_products_in_bytes_are_exact_with_the_kernels_of_older_processors(kernels: str, tmp_path: Path) -> None:
    try:
        copy_without(kernels, tmp_path)
    except (UnknownBuild, StopIteration) as error:
        pytest.skip(f"not a known build of ONNX Runtime: {error}")

    def run(*command: str) -> str:
        environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
        ran = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    # That unlimited weights saturate shows that these kernels are in use.
    assert float(run("-c", _SATURATES)) < 64 * 127
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model/onnx/test_int8.py")
