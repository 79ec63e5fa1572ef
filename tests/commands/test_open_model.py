from __future__ import annotations

import pwd
import weakref
from pathlib import Path

import pytest

from service.cli import main
from service.commands.open_model import find_model, start_opening
from service.data import EXAMPLES
from service.errors import SettingsInvalid
from service.inference.backends.compile_options import CompileOptions
from service.settings.settings import Settings


def test_the_model_is_opened_once_in_advance_and_then_at_every_call() -> None:
    settings = Settings(device="cpu")
    opened = start_opening(find_model(settings), settings, few=True)
    first, second = opened(), opened()
    assert first is not second
    assert first.info == second.info
    # A backend that breaks must leave the memory before the next one is opened.
    left = weakref.ref(first)
    del first
    assert left() is None


def test_an_error_is_raised_where_the_model_is_needed() -> None:
    settings = Settings(device="cpu", dtype="fp16")
    opened = start_opening(find_model(settings), settings)
    for _ in range(2):
        with pytest.raises(SettingsInvalid, match="fp16"):
            opened()


@pytest.fixture
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without home directory and entry in passwd."""

    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("_no_home")
def test_the_embedded_model_needs_no_home_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recognize", str(EXAMPLES / "happy.wav"), "--device", "cpu"]) == 0
    assert main(["serve", "--check"]) == 0
    assert "cache_dir: ~/.cache" in capsys.readouterr().out


@pytest.mark.usefixtures("_no_home")
@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--model", "iic/emotion2vec_plus_seed"],
        ["serve", "--model", "~/model"],
        ["serve", "--cache-dir", "~/models"],
        ["models", "list"],
        ["models", "pull", "iic/emotion2vec_plus_seed"],
    ],
)
def test_whatever_needs_the_home_directory_says_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "the home directory is not known" in capsys.readouterr().err


@pytest.mark.usefixtures("_no_home")
def test_compiled_programs_are_not_kept_without_a_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    CompileOptions(cache=Settings().cache_dir / "compiled").set_cache_variables()
    assert "the home directory is not known" in caplog.text
    assert list(tmp_path.iterdir()) == []
