"""The HEALTHCHECK of the image: exit status 0 while the service in this container is alive.

It requests `/livez`, not `/readyz`, because a container that is still loading its model must not be restarted, and it
asks where the service listens: the settings come from the same YAML file and environment, and from the flags of the
container's first process. It uses `http.client`, because urllib would use a proxy that the environment names.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
from contextlib import closing
from pathlib import Path

from service.errors import SettingsInvalid
from service.settings.settings import Settings
from service.settings.sources import add_flags, flags_of, load_settings

COMMAND_LINE = Path("/proc/1/cmdline")
TIMEOUT = 2.0

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    """Send one request; 0 if the service is alive."""
    try:
        with closing(connection(settings(COMMAND_LINE.read_bytes()))) as asking:
            asking.request("GET", "/livez")
            return int(asking.getresponse().status != http.HTTPStatus.OK)
    except (OSError, SettingsInvalid) as error:
        print(error)
        return 1


def settings(command_line: bytes) -> Settings:
    """The settings of a service that was started with this command line."""
    arguments = [each.decode(errors="surrogateescape") for each in command_line.split(b"\0")[:-1]]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    add_flags(parser)
    # The first process may be another one that starts the service, such as `docker run --init`.
    flags = arguments[arguments.index("serve") + 1 :] if "serve" in arguments else []
    options, _ = parser.parse_known_args(flags)
    return load_settings(options.config, **flags_of(options))


def connection(settings: Settings) -> http.client.HTTPConnection:
    """A connection to where the service listens."""
    if settings.uds is not None:
        return _UnixConnection(settings.uds)
    return http.client.HTTPConnection(_ANY_ADDRESS.get(settings.host, settings.host), settings.port, timeout=TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    """A connection through a Unix domain socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


if __name__ == "__main__":
    sys.exit(main())
