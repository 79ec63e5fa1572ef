"""Reserved TCP ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 that refuses connections until a server is started on it.

    The port stays bound: the system may give a port that is only looked up and released to any process that asks for a
    free one, and there are only some thousands of them.
    """
    with socket.socket() as holder:
        holder.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # servers set it too, so they can bind the same port
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
