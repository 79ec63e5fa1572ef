"""The command `models`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.cli import main


def test_list_contains_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--verify", "--cache-dir", str(tmp_path)]) == 0
    model, int8 = capsys.readouterr().out.splitlines()
    assert model.startswith("tiny ")
    assert re.fullmatch(r"    INT8: scores differ from FP32 by up to 0\.00\d\d, 100% of 24 labels are the same", int8)


def test_an_id_for_a_prepared_model_needs_an_output_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "prepare", str(tmp_path), "--id", "mine"]) == 2
    assert "--out" in capsys.readouterr().err
