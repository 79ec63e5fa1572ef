"""Ports that other processes do not get meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 on which nobody listens, unless a server is told to listen just there.

    A port that is only looked up and let go may be given to any process that asks for a free one, and some thousand
    are all there are. So it stays bound, which keeps the system from giving it away, and lets callers be refused.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, which may listen there then
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
