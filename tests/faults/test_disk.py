"""The disk to which uploads are spooled is full, or files may not become as large as an upload."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.audio_samples import encode, speech
from tests.faults.background_clients import BackgroundClients
from tests.faults.conftest import Observe
from tests.faults.program import FILE_SIZE
from tests.faults.service import HealthWatch, RunningService, connect, running

pytestmark = pytest.mark.slow

LARGE = encode("wav-s16", np.tile(speech(44_100), 30), 44_100)
"""About 4 MB. Uploads of up to 1 MiB are not spooled."""

SENT: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "raw": lambda client: client.post("/recognize", content=LARGE, headers={"Content-Type": "audio/wav"}),
    "form": lambda client: client.post("/recognize", files={"file": LARGE}),
    "batch": lambda client: client.post("/recognize/batch", files=[("files", b"x"), ("files", LARGE)]),
}


def send_all(service: RunningService) -> dict[str, httpx.Response]:
    with connect(service.url) as client:
        return {name: send(client) for name, send in SENT.items()}


def assert_refused(answers: dict[str, httpx.Response]) -> None:
    for name, answer in answers.items():
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_full"), name
        assert int(answer.headers["retry-after"]) >= 1


def test_files_may_not_be_that_large(tmp_path: Path, observe: Observe) -> None:
    """The limit on file sizes (RLIMIT_FSIZE) is below the size of uploads, with 5 other clients active"""
    with running(tmp_path, environment={FILE_SIZE: str(3 << 20)}) as service:
        before, counted = service.saturate(), service.idle()
        with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
            assert_refused(send_all(service))
        clients.assert_undisturbed()
        after = service.idle()
        assert after.since(counted) == {"200": clients.statuses[200], "503": 2}
        assert after.by("reason", "ser_requests_rejected_total")["storage_full"] == 3
        assert (health.live, health.ready) == ([200], [200])
        resources = service.settled_resources(before)
        assert resources.within(before), (before, resources)
        assert "Traceback" not in service.log.read_text()
    observe(
        f"3 times 503 `storage_full` with `Retry-After`; {clients.statuses[200]} correct answers to the other clients"
    )


def mounts_are_possible() -> bool:
    return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0


@pytest.mark.skipif(not mounts_are_possible(), reason="needs a user namespace in which mounting is allowed")
def test_the_disk_is_full(tmp_path: Path, observe: Observe) -> None:
    """The disk for spooled uploads (a tmpfs of 16 MiB) is full for a time, with 5 other clients active"""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=16m tmpfs "$TMPDIR" && exec "$@"'
    wrapper = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    with running(tmp_path, environment={"TMPDIR": str(disk)}, wrapper=wrapper) as service:
        # Only the process has the mount in its namespace; others reach it through /proc.
        filler = Path(f"/proc/{service.process.pid}/root{disk}/filler")
        before, counted = service.saturate(), service.idle()
        with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
            filler.write_bytes(bytes(13 << 20))
            refused = [send_all(service) for _ in range(3)]
            filler.unlink()
            answered = send_all(service)
        for answers in refused:
            assert_refused(answers)
        clients.assert_undisturbed()
        assert [answer.status_code for answer in answered.values()] == [200] * 3
        assert "result" in answered["batch"].json()["items"][1]
        assert service.idle().since(counted) == {"200": clients.statuses[200] + 2, "503": 6}
        assert (health.live, health.ready) == ([200], [200])
        resources = service.settled_resources(before)
        assert resources.within(before), (before, resources)
        assert list(filler.parent.iterdir()) == [], "no file is left on the disk"
        assert "Traceback" not in service.log.read_text()
    statuses = Counter(answer.status_code for answers in refused for answer in answers.values())
    observe(
        f"{statuses[503]} times 503 `storage_full` with `Retry-After` while the disk was full; large uploads "
        f"answered once it had space; {clients.statuses[200]} correct answers to the other clients; no file left"
    )
