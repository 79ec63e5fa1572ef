"""The command `emotion2vec-service` itself."""

from __future__ import annotations

import pytest

from service.cli import main


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name}" in text for name in ("serve", "recognize", "stream", "models"))
