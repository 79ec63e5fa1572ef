"""Compares the answers of two checkouts, bit by bit: `python -m loadtests.accuracy.revisions OTHER`.

Both serve the embedded model. Every bundled clip and a two-channel call go through HTTP under many options, through a
live stream, and through a run over files on the command line. Whatever differs is printed; the status is 1 then. For
changes that must not change answers, with OTHER a checkout of the revision before (`git worktree add OTHER REVISION`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import soundfile
from emotion2vec_client import Client
from websockets.asyncio.client import connect

from loadtests.accuracy.synthetic_calls import encode, make_call, source_clips
from loadtests.common.machine import clean_environment
from loadtests.common.paths import EMODB, ROOT
from loadtests.common.ports import held_port
from service.data import EXAMPLES

OPTIONS: tuple[dict[str, str], ...] = (
    {},
    {"trim": "false"},
    {"granularity": "frame"},
    {"granularity": "frame", "window": "0.5", "hop": "0.1"},
    {"embedding": "utterance", "encoding": "base64"},
    {"embedding": "frame"},
    {"labels": "happy,sad", "label_language": "zh"},
    {"granularity": "segment"},
    {"granularity": "segment", "channels": "split", "embedding": "utterance"},
    {"channels": "split"},
    {"start": "0.3", "end": "1.5"},
    {"channels": "7"},
    {"labels": "nope"},
    {"window": "1"},
)
"""Options of requests; the last three are refused."""

STREAMS: tuple[dict[str, Any], ...] = (
    {},
    {"select": "split", "window": 2.0, "hop": 0.5, "trim": True},
    {"embedding": "utterance", "labels": ["happy", "sad"]},
)
"""Options of streams."""

_VOLATILE = frozenset({"id", "request_id", "timings", "modified", "detail", "message"})
"""Members of answers that differ from run to run, and texts for people."""

_START_SECONDS = 60.0


def answers(checkout: Path, files: list[Path]) -> dict[str, Any]:
    """All answers of a checkout, by what was asked.

    Args:
        checkout: the root of a clone; it runs with this interpreter's packages.
        files: the audio; the last one has several channels.

    Raises:
        RuntimeError: if its server does not start.
    """
    found: dict[str, Any] = {}
    with _serving(checkout) as url, httpx.Client(base_url=url, timeout=120) as client:
        found["openapi"] = client.get("/openapi.json").json()
        found["models"] = client.get("/models").json()
        for file in files:
            for options in OPTIONS:
                response = client.post("/recognize", params=options, files={"file": (file.name, file.read_bytes())})
                found[f"HTTP, {file.name}, {options}"] = [response.status_code, _stable(response.json())]
            headers = {"Accept": "application/x-ndjson", "Content-Type": "application/octet-stream"}
            lines = client.post("/recognize?granularity=segment", headers=headers, content=file.read_bytes()).text
            found[f"lines, {file.name}"] = [_stable(json.loads(line)) for line in lines.splitlines()]
        batch = [("files", (file.name, file.read_bytes())) for file in files[:8]]
        found["batch"] = _stable(client.post("/recognize/batch?granularity=frame", files=batch).json())
        for options in STREAMS:
            for file in (files[0], files[-1]):
                found[f"stream, {file.name}, {options}"] = asyncio.run(_stream(url, file, options))
    for options in OPTIONS[:-3]:
        found[f"folder, {options}"] = _folder(checkout, files, options)
    return found


@contextmanager
def _serving(checkout: Path) -> Iterator[str]:
    with held_port() as port:
        command = _command(checkout, "serve", "--port", str(port), "--answer-cache-bytes", "0")
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=_environment(checkout), cwd="/", stdout=quiet, stderr=quiet) as process:
            url = f"http://127.0.0.1:{port}"
            try:
                with Client(url) as client:
                    client.wait_ready(_START_SECONDS)
                yield url
            finally:
                process.send_signal(signal.SIGTERM)


async def _stream(url: str, file: Path, options: dict[str, Any]) -> list[Any]:
    """The events of a stream, for which every window waits."""
    samples, rate = soundfile.read(file, dtype="int16", always_2d=True)
    start = {"type": "start", "sampling_rate": rate, "encoding": "s16le", "channels": samples.shape[1], "late": "wait"}
    async with connect(url.replace("http", "ws") + "/stream", max_size=None) as socket:

        async def send() -> None:
            await socket.send(json.dumps({**start, **options}))
            for first in range(0, len(samples), rate // 2):
                await socket.send(samples[first : first + rate // 2].tobytes())
            await socket.send(json.dumps({"type": "end"}))

        sending = asyncio.create_task(send())
        events = [_stable(json.loads(message)) async for message in socket]
        await sending
    return events


def _folder(checkout: Path, files: list[Path], options: dict[str, str]) -> dict[str, Any]:
    """The rows of a run over files, by name."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "rows.jsonl"
        flags = [flag for name, value in options.items() for flag in ("--option", f"{name}={value}")]
        command = _command(checkout, "recognize", *map(str, files), "--out", str(out), *flags)
        subprocess.run(command, env=_environment(checkout), cwd="/", stderr=subprocess.DEVNULL, check=False)
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["file"]: _stable(row) for row in rows}


def _command(checkout: Path, *arguments: str) -> list[str]:
    # Without the check, a checkout without the package would be compared as the installed one, which is this checkout.
    package = str(checkout / "service" / "__init__.py")
    program = (
        f"import sys, service; service.__file__ == {package!r} or sys.exit('another checkout was imported'); "
        "from service.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-P", "-c", program, *arguments, "--threads", "2", "--dtype", "fp32"]


def _environment(checkout: Path) -> dict[str, str]:
    return {**clean_environment(), "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "client")])}


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(each) for name, each in value.items() if name not in _VOLATILE}
    return [_stable(each) for each in value] if isinstance(value, list) else value


def audio_files(directory: Path) -> list[Path]:
    """The bundled clips, and at last a call of two minutes in two channels, which is written into `directory`."""
    call = directory / "call.wav"
    call.write_bytes(encode(make_call(source_clips(None), 120, seed=1).samples, "pcm"))
    clips = [path for folder in (EXAMPLES, EMODB) for path in sorted(folder.iterdir())]
    return [*(path for path in clips if path.suffix in (".flac", ".wav")), call]


def main() -> int:
    """Compare, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        files = audio_files(Path(directory))
        ours, theirs = answers(ROOT, files), answers(arguments.other.resolve(), files)
    differing = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    print(*sorted(differing), sep="\n")
    print(f"{len(ours)} answers, {len(differing)} differ")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
