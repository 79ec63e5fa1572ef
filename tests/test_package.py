"""The wheels and source archives of the service and the client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from itertools import chain
from pathlib import Path, PurePosixPath

import emotion2vec_client
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import service

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://git.example.org/emotion/service"

MAKE = ["make", "--no-print-directory", "--assume-old", ".venv/.dev", "release"]
"""`make release` in the environment that runs the tests, without installing it again."""


def build(source: Path, kind: str, target: Path, repository: str = "") -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    environment = os.environ | {"RELEASE_REPOSITORY": repository}
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True, timeout=60)
    (built,) = target.iterdir()
    return built


def tracked(*folders: str) -> set[str]:
    """Files that are in the repository, or will be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not in a clone of the repository")
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT / "client", "wheel", tmp_path_factory.mktemp("client-wheel"))


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def packaged(wheel: Path) -> set[str]:
    return {name for name in names(wheel) if ".dist-info/" not in name}


def metadata(wheel: Path) -> Message:
    (name,) = (name for name in names(wheel) if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def extracted(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="data")
    (source,) = target.iterdir()
    return source


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    assert packaged(wheel) == tracked("service")
    assert {
        "service/data/models/tiny/model.fp32.onnx",
        "service/data/examples/happy.wav",
        "service/py.typed",
    } <= packaged(wheel)


def test_the_client_wheel_holds_every_file_of_the_client_and_no_other(client_wheel: Path) -> None:
    assert packaged(client_wheel) == {name.removeprefix("client/") for name in tracked("client/emotion2vec_client")}
    assert "emotion2vec_client/py.typed" in packaged(client_wheel)


def test_both_wheels_have_the_licence_and_the_service_has_its_command(wheel: Path, client_wheel: Path) -> None:
    for each in (wheel, client_wheel):
        files = {PurePosixPath(name).name: name for name in names(each) if ".dist-info/" in name}
        with zipfile.ZipFile(each) as opened:
            assert opened.read(files["LICENSE"]) == (ROOT / "LICENSE").read_bytes()
            if each == wheel:
                assert "emotion2vec-service = service.cli:main" in opened.read(files["entry_points.txt"]).decode()


def test_the_service_requires_the_client_of_the_same_checkout(wheel: Path, client_wheel: Path) -> None:
    client = metadata(client_wheel)
    assert client["Version"] == emotion2vec_client.__version__
    assert metadata(wheel)["Version"] == service.__version__
    assert f"emotion2vec-client=={client['Version']}" in metadata(wheel).get_all("Requires-Dist", [])


def test_the_client_requires_nothing_else_than_its_declared_libraries(client_wheel: Path) -> None:
    required = {re.split(r"[<>=!~; ]", each)[0] for each in metadata(client_wheel).get_all("Requires-Dist", [])}
    assert required == {"httpx", "orjson", "tenacity", "typing-extensions", "websockets"}


def test_the_declared_ranges_admit_the_versions_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    for folder in (ROOT, ROOT / "client"):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {}).values()
        declared = [*project["dependencies"], *chain.from_iterable(extras)]
        for requirement in map(Requirement, declared):
            if requirement.name != "emotion2vec-client":
                assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("folder", ["", "client"])
def test_a_release_has_absolute_links_and_other_builds_have_no_urls(
    folder: str, wheel: Path, client_wheel: Path, tmp_path: Path
) -> None:
    local = metadata(client_wheel if folder else wheel)
    assert local.get_all("Project-URL") is None
    assert local.get_payload() == (ROOT / folder / "README.md").read_text(encoding="utf-8")

    archive = build(ROOT / folder, "sdist", tmp_path / "sdist", REPOSITORY)
    # The address is stored in the source archive, so that an installer builds the same metadata from it.
    released = metadata(build(extracted(archive, tmp_path / "source"), "wheel", tmp_path / "wheel"))
    assert f"Repository, {REPOSITORY}" in released.get_all("Project-URL", [])
    targets = re.findall(r"\]\(([^)\s]+)\)", str(released.get_payload()))
    assert [target for target in targets if not re.match(r"https?://|#", target)] == []
    ours = [target.removeprefix(REPOSITORY) for target in targets if target.startswith(REPOSITORY)]
    assert f"/blob/v{service.__version__}/docs/client.md" in ours
    for target in ours:
        _, kind, tag, path = target.partition("#")[0].split("/", 3)
        assert (kind, tag) == ("raw" if path.endswith(".png") else "blob", f"v{service.__version__}")
        assert (ROOT / path).exists()


def test_make_release_without_an_address_says_what_is_missing() -> None:
    run = subprocess.run(MAKE, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode != 0
    assert "make release REPOSITORY=https://" in run.stderr


@pytest.mark.slow
def test_make_release_builds_checks_and_installs_both_distributions(tmp_path: Path) -> None:
    command = [*MAKE, f"REPOSITORY={REPOSITORY}", f"DIST={tmp_path / 'dist'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "dist").iterdir()) == [
        "emotion2vec_client",
        "emotion2vec_client",
        "emotion2vec_service",
        "emotion2vec_service",
    ]
    assert run.stdout.splitlines()[-1] == service.__version__


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel_and_the_image(wheel: Path, tmp_path: Path) -> None:
    source = extracted(build(ROOT, "sdist", tmp_path / "sdist"), tmp_path / "source")
    assert names(build(source, "wheel", tmp_path / "wheel")) == names(wheel)
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert tracked("client", "docker", "configs", "tests", "Dockerfile", ".dockerignore", "constraints.txt") <= held
