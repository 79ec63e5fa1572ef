"""The Dockerfile's install steps, run in clean virtual environments, and the service that they install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audio_samples import encode, speech
from tests.docker.image import ROOT, Image, build, environment, last

pytestmark = pytest.mark.slow

CONTAINED = Path(__file__).with_name("contained.py")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory that other users can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    return build("cpu", scratch)


def python(image: Image, program: str) -> str:
    """The output of a program that the image's Python runs."""
    command = [str(image.python / "bin" / "python"), "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_only_system_steps_are_left_out(image: Image) -> None:
    assert [step.split()[0] for step in image.left_out] == ["useradd"]


def test_installed_packages_are_pinned_and_without_torch(image: Image) -> None:
    command = [str(image.python / "bin" / "python"), "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    installed = {each["name"].lower().replace("_", "-"): each["version"] for each in listed}
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    assert installed.keys() - pinned.keys() == {"emotion2vec-client", "emotion2vec-service", "pip", "setuptools"}
    assert {name: version for name, version in installed.items() if name in pinned and version != pinned[name]} == {}
    assert not {"torch", "torchaudio", "funasr", "onnx", "hatchling", "pytest"} & installed.keys()


def test_modules_are_compiled_because_the_container_is_read_only(image: Image) -> None:
    package = Path(python(image, "import service; print(service.__path__[0])"))
    assert package.is_relative_to(image.python)
    sources = {path.relative_to(package).with_suffix("") for path in package.rglob("*.py")}
    compiled = {
        path.parent.parent.relative_to(package) / path.name.partition(".")[0] for path in package.rglob("*.pyc")
    }
    assert sources <= compiled
    assert len(sources) > 50


def contained(image: Image, scratch: Path, clips: dict[str, bytes]) -> dict[str, Any]:
    """Run the image's command with the restrictions of a container; see `contained.py`."""
    temporary, aside = scratch / "tmp", scratch / "aside"
    for directory in (temporary, aside):
        directory.mkdir()
    for name, content in clips.items():
        (scratch / name).write_bytes(content)
    variables = {name: image.local(value) for name, value in environment("cpu").items()}
    variables |= {"PATH": f"{image.python / 'bin'}:/usr/bin:/bin", "TMPDIR": str(temporary)}
    _, *health = last("cpu", "HEALTHCHECK")
    order = {
        "temporary": str(temporary),
        "aside": str(aside),
        "prefix": python(image, "import sys; print(sys.base_prefix)"),
        "user": last("cpu", "USER")[0].partition(":")[0],
        "directory": str(image.directory),
        "environment": variables,
        "command": [str(image.python / "bin" / last("cpu", "ENTRYPOINT")[0]), *last("cpu", "CMD")],
        "health": [str(image.python / "bin" / health[0]), *map(image.local, health[1:])],
        "clips": [str(scratch / name) for name in clips],
    }
    namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    run = subprocess.run(
        ["unshare", *namespaces, str(image.python / "bin" / "python"), str(CONTAINED)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    return report


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, for namespaces")
def test_the_service_works_without_root_home_network_or_writable_folders(image: Image, scratch: Path) -> None:
    clips = {
        "example": (ROOT / "service" / "data" / "examples" / "happy.wav").read_bytes(),
        "spooled to a file": encode("wav-f32", np.tile(speech(), 12), 16_000),
        "for FFmpeg": encode("m4a", speech(), 16_000),
    }
    assert len(clips["spooled to a file"]) > 2**20
    report = contained(image, scratch, clips)
    assert report["writable"] == [str(scratch / "tmp")]
    assert report["health"] == 0
    assert [status for status, _ in report["answers"].values()] == [200] * len(clips), report
    example = report["answers"][str(scratch / "example")][1]
    assert example["label"] == "happy"
    assert "Ready after" in report["output"]
    assert "Traceback" not in report["errors"]
    assert report["status"] == 0
    assert report["health_when_stopped"] == 1
