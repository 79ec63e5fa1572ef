"""The command `models`."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli import main


def test_list_contains_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--verify", "--cache-dir", str(tmp_path)]) == 0
    assert "tiny" in capsys.readouterr().out


def test_an_id_for_a_prepared_model_needs_an_output_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "prepare", str(tmp_path), "--id", "mine"]) == 2
    assert "--out" in capsys.readouterr().err
