"""Reserved TCP ports."""

from __future__ import annotations

import socket

import pytest

from loadtests.common.ports import held_port


def test_a_held_port_refuses_connections_until_a_server_listens_on_it() -> None:
    with held_port() as port:
        address = ("127.0.0.1", port)
        for _ in range(2):  # also after a server has stopped
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            with socket.create_server(address), socket.create_connection(address):
                pass


def test_the_system_does_not_assign_a_held_port() -> None:
    given = set()
    with held_port() as port:
        for _ in range(30_000):  # about four times as many as there are ephemeral ports
            with socket.create_server(("127.0.0.1", 0)) as server:
                given.add(server.getsockname()[1])
    assert port not in given
