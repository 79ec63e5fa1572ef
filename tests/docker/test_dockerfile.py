"""What can be said of the Dockerfile without building it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loadtests.common.ports import held_port
from service.settings.settings import ENV_PREFIX, Settings
from tests.docker.image import DOCKERFILE, ROOT, chain, environment, last, stages

TARGETS = ("cpu", "cuda")


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    run = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def test_without_a_target_the_slim_image_is_built() -> None:
    assert list(stages())[-1] == "cpu"


def test_only_the_cuda_image_has_torch() -> None:
    steps = {target: [step.value[0] for step in chain(target) if step.name == "RUN"] for target in TARGETS}
    assert [target for target in TARGETS if any("torch" in step for step in steps[target])] == ["cuda"]


@pytest.mark.parametrize("target", TARGETS)
def test_code_comes_after_all_that_is_downloaded(target: str) -> None:
    names = [
        "download" if step.name == "RUN" and "--requirement" in step.value[0] else "code"
        for step in chain(target)
        if (step.name == "RUN" and "pip install" in step.value[0]) or (step.name == "COPY" and "service" in step.value)
    ]
    assert names in (["download", "code"], ["download", "download", "code"])
    code = [step.value[0] for step in chain(target) if step.name == "RUN"][-1]
    assert "--no-index --no-deps" in code or "--no-deps --no-index" in code


@pytest.mark.parametrize("name", list(stages()))
def test_every_install_is_held_to_the_pins(name: str) -> None:
    for step in stages()[name].instructions:
        if step.name == "RUN" and "pip install" in step.value[0] and "--no-index" not in step.value[0]:
            assert "--constraint constraints.txt" in step.value[0]


def test_what_is_copied_is_there_and_is_all_that_the_build_sees() -> None:
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
    assert {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")} == copied


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_a_user_that_kubernetes_can_see_is_not_root(target: str) -> None:
    user, _, group = last(target, "USER")[0].partition(":")
    assert min(int(user), int(group)) > 0
    assert any(f"--uid {user} " in step.value[0] for step in chain(target) if step.name == "RUN")
    assert set(last(target, "VOLUME")) == {"/cache", "/tmp"}


@pytest.mark.parametrize("target", TARGETS)
def test_the_environment_names_settings_and_files_that_exist(target: str) -> None:
    variables = {name: value for name, value in environment(target).items() if name.startswith(ENV_PREFIX)}
    config = variables.pop("SER_CONFIG").removeprefix(last(target, "WORKDIR")[0] + "/")
    assert (ROOT / config).is_file()
    assert {name.removeprefix(ENV_PREFIX).lower() for name in variables} <= Settings.model_fields.keys()


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers `/livez`, and nothing else, with `status`; its port."""

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
    # A proxy that does not exist, which the check must not ask.
    env = os.environ | {"SER_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=env, check=False, timeout=30).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_asks_whether_the_service_lives(status: int, expected: int) -> None:
    with answering(status) as port:
        assert health(port) == expected


def test_the_health_check_fails_where_nobody_listens() -> None:
    with held_port() as port:
        assert health(port) == 1
