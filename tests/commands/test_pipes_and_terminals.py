"""Audio on standard input and other pipes, names that are not UTF-8, and terminals that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.data import EXAMPLES
from tests.client.scripted_server import refusal, scripted
from tests.folders.served import ANSWER, MODELS

HAPPY = EXAMPLES / "happy.wav"
LATIN = "iso-8859-1"


def run(
    *arguments: str | bytes, status: int = 0, stdin: bytes | None = None, encoding: str = "utf-8"
) -> subprocess.CompletedProcess[bytes]:
    """Run a command; standard input is a pipe with these bytes."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == status, done.stderr.decode()
    return done


@pytest.fixture
def latin_name(tmp_path: Path) -> bytes:
    """The path of a recording whose name is not UTF-8."""
    path = os.fsencode(tmp_path) + b"/Gespr\xe4ch.wav"
    try:
        with open(path, "wb") as file:  # noqa: PTH123 - a path in bytes
            file.write(HAPPY.read_bytes())
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    return path


@pytest.mark.parametrize("argument", ["-", "/dev/stdin"])
def test_a_file_on_standard_input(argument: str) -> None:
    printed = run("recognize", argument, "--json", "--device", "cpu", stdin=HAPPY.read_bytes()).stdout
    document = json.loads(printed)
    assert (document["file"], document["label"]) == ("/dev/stdin", "happy")


def test_a_pipe_that_is_no_audio_is_a_problem_of_that_file() -> None:
    done = run("recognize", "-", str(HAPPY), "--device", "cpu", stdin=b"no audio", status=1)
    assert b"/dev/stdin: " in done.stderr
    assert b"happy.wav (3.10 s)" in done.stdout


def test_a_pipe_is_sent_again_after_a_refusal() -> None:
    with scripted(MODELS, refusal(), ANSWER) as server:
        run("recognize", "-", "--url", server.url, stdin=HAPPY.read_bytes())
    assert [request.body for request in server.received[1:]] == [HAPPY.read_bytes()] * 2


def test_a_named_pipe_has_a_row(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    writer = subprocess.Popen(["cp", HAPPY, tmp_path / "pipe.wav"])
    run("recognize", str(tmp_path / "pipe.wav"), "--out", str(tmp_path / "rows.jsonl"), "--device", "cpu")
    assert writer.wait(10) == 0
    row = json.loads((tmp_path / "rows.jsonl").read_bytes())
    assert (row["file"], row["label"]) == ("pipe.wav", "happy")


def test_names_that_are_not_utf8(latin_name: bytes) -> None:
    line = run("recognize", latin_name, "--device", "cpu").stdout.splitlines()[0]
    assert line.endswith(b"/Gespr\\xe4ch.wav (3.10 s)")
    document = json.loads(run("recognize", "--json", latin_name, "--device", "cpu").stdout)
    assert document["file"].endswith("/Gespr\\xe4ch.wav")


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path, latin_name: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/Gespr\xe4che"
    os.mkdir(folder)  # noqa: PTH102 - a path in bytes
    os.rename(latin_name, folder + b"/a.wav")  # noqa: PTH104
    out = folder + b"/rows.jsonl"
    for _ in range(2):  # the second run continues the first
        run("recognize", folder, b"--out", out, "--device", "cpu")
    with open(out, "rb") as rows:  # noqa: PTH123
        assert json.loads(rows.read())["file"] == "a.wav"


@pytest.mark.parametrize("options", [[], ["--option", "granularity=segment"]])
def test_a_terminal_that_is_not_utf8(options: list[str]) -> None:
    printed = run("recognize", str(HAPPY), "--device", "cpu", *options, encoding=LATIN).stdout.decode("iso-8859-1")
    assert "█" not in printed
    assert ("#####" in printed) == (not options)
    assert "\\u" not in printed


def test_json_is_utf8_on_every_terminal() -> None:
    options = ["--option", "label_language=zh", "--json", "--device", "cpu"]
    assert json.loads(run("recognize", str(HAPPY), *options, encoding=LATIN).stdout.decode())["label"] == "开心"


def test_labels_that_a_terminal_does_not_have_are_escaped() -> None:
    printed = run("recognize", str(HAPPY), "--option", "label_language=zh", "--device", "cpu", encoding=LATIN).stdout
    assert b"\\u5f00\\u5fc3" in printed


def test_help_on_a_terminal_that_is_not_utf8() -> None:
    assert b"usage" in run("stream", "--help", encoding="ascii").stdout
