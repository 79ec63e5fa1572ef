"""Run a built image with the restrictions of a container; started by `unshare`, in namespaces of its own.

The root file system is read-only except for one directory for temporary files, the loopback is the only network, and
the service runs as the user of the image, without a home directory. Writes the service's answers as JSON.

Uses only the standard library, because it runs in the image's Python.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PORT = 8000
"""The port that the image exposes; nothing else runs in this network namespace."""

_WRITABLE = ["find", "/tmp", "/var/tmp", "-xdev", "-writable", "-not", "-type", "l"]


def main() -> None:
    """Start the service, send requests, stop it."""
    order = json.loads(sys.stdin.read())
    restrict(Path(order["temporary"]), Path(order["prefix"]), Path(order["aside"]))
    user = int(order["user"])
    run: dict[str, Any] = {"env": order["environment"], "cwd": order["directory"]}
    run |= {"user": user, "group": user, "extra_groups": []}
    sys.stdout.write(json.dumps(report(order, run)))


def report(order: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Run the service and report its answers, output and exit status."""
    with subprocess.Popen(order["command"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **run) as server:
        try:
            until_ready(server)
            found: dict[str, Any] = {
                "health": subprocess.run(order["health"], check=False, timeout=10, **run).returncode,
                "writable": subprocess.run(
                    _WRITABLE, capture_output=True, check=False, text=True, **run
                ).stdout.split(),
                "answers": {clip: ask("POST", "/recognize", Path(clip).read_bytes()) for clip in order["clips"]},
            }
        finally:
            server.terminate()
            output, errors = server.communicate(timeout=30)
    stopped = subprocess.run(order["health"], check=False, timeout=10, **run).returncode
    return {**found, "output": output, "errors": errors, "status": server.returncode, "health_when_stopped": stopped}


def until_ready(server: subprocess.Popen[str]) -> None:
    """Wait for `/readyz`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if ask("GET", "/readyz")[0] == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the service is not ready (status {server.poll()})")


def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """The status and the JSON of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request(method, path, body, {"Content-Type": "application/octet-stream"} if body else {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def restrict(temporary: Path, prefix: Path, aside: Path) -> None:
    """Make everything except `temporary` read-only, and bring the loopback up.

    Args:
        temporary: gets a file system in memory.
        prefix: the Python installation that the image's Python needs.
        aside: a mount point for `prefix` while its parent is hidden, if other users cannot enter that parent.
    """
    system("ip", "link", "set", "lo", "up")
    system("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(temporary))
    closed = next((each for each in reversed(prefix.parents) if not each.stat().st_mode & 0o001), None)
    if closed is not None:
        system("mount", "--bind", str(prefix), str(aside))
        system("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(closed))
        prefix.mkdir(parents=True)
        system("mount", "--bind", str(aside), str(prefix))
    system("mount", "-o", "remount,bind,ro", "/")


def system(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
