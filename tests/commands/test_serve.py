"""The settings and start of the command `serve`. `tests/api/server/test_server.py` tests the running server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.cli import main
from service.commands.serve import warn_of_long_clips
from service.settings.settings import Settings


def test_an_invalid_setting_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--port", "99999"]) == 2
    assert "port" in capsys.readouterr().err


def test_check_prints_effective_settings_with_sources_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef-in-a-file\n")
    monkeypatch.setenv("SER_TIMEOUT", "7")
    monkeypatch.setenv("SER_API_KEYS", "0123456789abcdef")
    assert main(["serve", "--check", "--port", "1234", "--api-keys-file", str(keys)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("#") for line in printed.splitlines()]
    assert {(value.strip(), source.strip()) for value, source in lines} >= {
        ("port: 1234", "flags: port"),
        ("timeout: 7.0", "environment: SER_TIMEOUT"),
        ("api_keys: ['**********']", "environment: SER_API_KEYS"),
        (f"api_keys_file: {keys}", "flags: api_keys_file"),
        ("model: tiny", "default"),
    }
    assert "0123456789abcdef" not in printed


def test_check_reads_the_file_of_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--api-keys-file", str(tmp_path / "absent")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_a_missing_model_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "iic/emotion2vec_plus_large", "--offline", "--cache-dir", str(tmp_path)]
    assert main(["serve", *arguments]) == 1
    assert "--model" in capsys.readouterr().err


@pytest.mark.parametrize(("expected", "warned"), [(None, False), (59.0, False), (120.0, True)])
def test_warns_of_clips_that_cannot_be_answered_in_time(
    expected: float | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_long_clips(Settings(max_utterance_duration=200.0, timeout=60.0), expected)
    assert [record.getMessage() for record in caplog.records] == warned * [
        "a clip of 200 s, the longest that max_utterance_duration allows, takes about 120 s with this model on this "
        "machine and is answered with 504 after 60 s (timeout); lower max_utterance_duration"
    ]
