"""Reserved TCP ports."""

from __future__ import annotations

import socket

import pytest

from loadtests.common.ports import held_port


def test_a_held_port_refuses_callers_until_a_server_is_told_to_listen_there() -> None:
    with held_port() as port:
        address = ("127.0.0.1", port)
        for _ in range(2):  # a server may go, and another come
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            with socket.create_server(address), socket.create_connection(address):
                pass


def test_a_held_port_is_given_to_nobody() -> None:
    given = set()
    with held_port() as port:
        for _ in range(30_000):  # some four times as many as there are
            with socket.create_server(("127.0.0.1", 0)) as server:
                given.add(server.getsockname()[1])
    assert port not in given
