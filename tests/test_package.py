"""What `pip install` gets: the wheel has everything that the service needs, and so has the source archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build(source: Path, kind: str, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60)
    (built,) = target.iterdir()
    return built


def tracked(*folders: str) -> set[str]:
    """Files that are in the repository, or will be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not in a clone of the repository")
    return set(listed.stdout.splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    package = {name for name in names(wheel) if ".dist-info/" not in name}
    assert package == tracked("service")
    assert {
        "service/data/models/tiny/model.fp32.onnx",
        "service/data/examples/happy.wav",
        "service/py.typed",
    } <= package


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    files = {PurePosixPath(name).name: name for name in names(wheel) if ".dist-info/" in name}
    with zipfile.ZipFile(wheel) as opened:
        assert "emotion2vec-service = service.cli:main" in opened.read(files["entry_points.txt"]).decode()
        assert opened.read(files["LICENSE"]) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel_and_the_image(wheel: Path, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert names(build(source, "wheel", tmp_path / "wheel")) == names(wheel)
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert tracked("docker", "configs", "tests", "Dockerfile", ".dockerignore", "constraints.txt") <= held
