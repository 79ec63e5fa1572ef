"""The Dockerfile, checked without building it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loadtests.common.ports import held_port
from service.settings.settings import ENV_PREFIX, SETTINGS
from tests.docker.image import DOCKERFILE, ROOT, chain, environment, last, stages

TARGETS = ("cpu", "cuda")


def test_hadolint_reports_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    run = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def test_without_a_target_the_slim_image_is_built() -> None:
    assert list(stages())[-1] == "cpu"


def test_only_the_cuda_image_has_torch() -> None:
    steps = {target: [step.value[0] for step in chain(target) if step.name == "RUN"] for target in TARGETS}
    assert [target for target in TARGETS if any("torch" in step for step in steps[target])] == ["cuda"]


@pytest.mark.parametrize("target", TARGETS)
def test_dependencies_are_installed_before_the_code(target: str) -> None:
    names = [
        "download" if step.name == "RUN" and "--requirement" in step.value[0] else "code"
        for step in chain(target)
        if (step.name == "RUN" and "pip install" in step.value[0]) or (step.name == "COPY" and "service" in step.value)
    ]
    assert names in (["download", "code"], ["download", "download", "code"])
    code = [step.value[0] for step in chain(target) if step.name == "RUN"][-1]
    assert "--no-index --no-deps" in code or "--no-deps --no-index" in code


def test_the_requirements_are_those_of_the_service_and_the_client_without_the_client() -> None:
    command = [sys.executable, "docker/requirements.py"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    listed = run.stdout.split("\n")
    for pyproject in (ROOT / "pyproject.toml", ROOT / "client" / "pyproject.toml"):
        declared = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
        assert {each for each in declared if not each.startswith("emotion2vec-")} <= set(listed)
    assert not any(each.startswith("emotion2vec-") for each in listed)


@pytest.mark.parametrize("name", list(stages()))
def test_every_install_uses_the_constraints(name: str) -> None:
    for step in stages()[name].instructions:
        if step.name == "RUN" and "pip install" in step.value[0] and "--no-index" not in step.value[0]:
            assert "--constraint constraints.txt" in step.value[0]


def test_copied_files_exist_and_dockerignore_admits_only_them() -> None:
    copied = {
        source
        for stage in stages().values()
        for step in stage.instructions
        if step.name == "COPY"
        for source in step.value[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*"
    seen = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert seen == {source for source in copied if not any(source.startswith(f"{folder}/") for folder in copied)}


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_a_numeric_user_that_is_not_root(target: str) -> None:
    user, _, group = last(target, "USER")[0].partition(":")
    assert min(int(user), int(group)) > 0
    assert any(f"--uid {user} " in step.value[0] for step in chain(target) if step.name == "RUN")
    assert set(last(target, "VOLUME")) == {"/cache", "/tmp"}


@pytest.mark.parametrize("target", TARGETS)
def test_the_environment_names_settings_and_files_that_exist(target: str) -> None:
    variables = {name: value for name, value in environment(target).items() if name.startswith(ENV_PREFIX)}
    config = variables.pop("SER_CONFIG").removeprefix(last(target, "WORKDIR")[0] + "/")
    assert (ROOT / config).is_file()
    assert {name.removeprefix(ENV_PREFIX).lower() for name in variables} <= SETTINGS.keys()


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers `/livez` with `status`, and other paths with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health(port: int) -> int:
    command = [sys.executable, str(ROOT / "docker" / "health.py")]
    # The check must not use a proxy; this one does not exist.
    env = os.environ | {"SER_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=env, check=False, timeout=30).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_calls_livez(status: int, expected: int) -> None:
    with answering(status) as port:
        assert health(port) == expected


def test_the_health_check_fails_without_a_server() -> None:
    with held_port() as port:
        assert health(port) == 1
