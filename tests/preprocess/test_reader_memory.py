"""Reading an hour takes no more memory than five minutes, in this process and in the one that runs FFmpeg."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio_samples import encode, speech
from tests.preprocess import bombs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GROWTH = 8 << 10
"""KiB by which the peak may differ: FFmpeg's index of packets (1 MiB at most, copied when it grows) and fragmentation.
The bytes of 55 more minutes of MP3 would take 19 MiB, and their samples 400 MiB."""

_MEASURE = """
import json, re, sys
from pathlib import Path
from service.preprocess.reader import open_reader
from tests.preprocess.children import children

def peak(process):
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path(f"/proc/{process}/status").read_text())[1])

seconds, child = 0.0, 0
with open(sys.argv[1], "rb") as file, open_reader(file, max_duration=3700) as reader:
    for block in reader.blocks():
        seconds += block.shape[1] / reader.sampling_rate
        child = max([child, *map(peak, children())])
print(json.dumps({"seconds": seconds, "here": peak("self"), "child": child}))
"""


def write(name: str, path: Path, minutes: int) -> None:
    """Write a recording of so many minutes without holding it in memory."""
    if name == "opus":
        path.write_bytes(bombs.long_opus(60 * minutes, "ogg"))
        return
    minute = np.tile(speech(channels=2), 50)[:, : 60 * 16_000]
    if name == "mp3":
        data = encode("mp3", minute, 16_000)
        data = data[data.index(b"\xff\xf3", data.index(b"Info")) :]  # without the frame that declares the length
        path.write_bytes(data * minutes)
        return
    with soundfile.SoundFile(path, "w", 16_000, 2, "PCM_16", format=name.upper()) as file:
        for _ in range(minutes):
            file.write(minute.T)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus"])
def test_an_hour_takes_no_more_memory_than_five_minutes(name: str, tmp_path: Path) -> None:
    measured = {}
    for minutes in (5, 60):
        path = tmp_path / f"{minutes}"
        write(name, path, minutes)
        command = [sys.executable, "-c", _MEASURE, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=True)
        measured[minutes] = json.loads(done.stdout)
        assert measured[minutes]["seconds"] == pytest.approx(60 * minutes, rel=0.01)
    assert (measured[60]["child"] > 0) == (name in ("mp3", "opus"))
    for process in ("here", "child"):
        assert measured[60][process] <= measured[5][process] + GROWTH, measured
