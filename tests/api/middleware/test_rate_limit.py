from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.api.callers import client_network
from service.api.middleware import rate_limit as module
from service.api.middleware.rate_limit import RateLimit


class Clock:
    """The clock of the library."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("throttled.utils.now_mono_f", lambda: clock.now)
    return clock


def allowed(limit: RateLimit, caller: str, times: int) -> int:
    return sum(limit.take(caller)[0] is None for _ in range(times))


def test_a_burst_passes_and_then_the_average(clock: Clock) -> None:
    limit = RateLimit(60, burst=5)
    assert allowed(limit, "a", 20) == 5
    clock.now += 1
    assert allowed(limit, "a", 20) == 1
    clock.now += 60
    assert allowed(limit, "a", 20) == 5
    passed = 0
    for _ in range(600):
        clock.now += 0.1
        passed += allowed(limit, "a", 3)
    assert 59 <= passed <= 61


def test_each_caller_has_its_own_quota(clock: Clock) -> None:
    limit = RateLimit(1, burst=1)
    assert allowed(limit, "a", 3) == 1
    assert allowed(limit, "b", 3) == 1


def test_a_request_after_retry_after_is_allowed(clock: Clock) -> None:
    limit = RateLimit(7, burst=2)
    allowed(limit, "a", 2)
    retry_after, _ = limit.take("a")
    assert retry_after is not None
    assert 0 < retry_after < 60 / 7 + 0.01
    clock.now += retry_after * 0.9
    assert limit.take("a")[0] is not None
    clock.now += retry_after * 0.1 + 0.001
    assert limit.take("a")[0] is None


def test_the_headers_of_the_draft(clock: Clock) -> None:
    limit = RateLimit(30, burst=3)  # one every two seconds, three at once
    _, headers = limit.take("a")
    assert headers == {"RateLimit-Policy": '"requests";q=3;w=6', "RateLimit": '"requests";r=2;t=2'}
    allowed(limit, "a", 2)
    retry_after, headers = limit.take("a")
    assert retry_after == pytest.approx(2)
    assert headers["RateLimit"] == '"requests";r=0;t=6'


def test_only_the_most_recent_callers_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CALLERS", 100)
    limit = RateLimit(1, burst=1)
    assert allowed(limit, "first", 2) == allowed(limit, "busy", 2) == 1
    for number in range(1000):
        assert allowed(limit, str(number), 2) == 1
        assert allowed(limit, "busy", 1) == 0  # an active caller is not forgotten
    assert allowed(limit, "950", 1) == 0
    assert allowed(limit, "first", 2) == 1


async def test_there_is_no_limit_by_default(client: httpx.AsyncClient) -> None:
    responses = [await client.get("/models") for _ in range(50)]
    assert {response.status_code for response in responses} == {200}
    assert not any("ratelimit" in response.headers for response in responses)


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 1234), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 2), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("::1", 1), "::/64"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),  # IPv4 on a dual-stack socket: not one network for all
        (("unknown", 0), "unknown"),
        (("x" * 10_000, 0), "x" * 64),
        (None, "local"),
    ],
)
def test_client_networks(client: Any, network: str) -> None:
    assert client_network({"type": "http", "client": client}) == network


def test_hosts_of_one_ipv6_network_are_one_caller() -> None:
    callers = {client_network({"client": (f"2001:db8::{host:x}", 1)}) for host in range(100)}
    assert len(callers) == 1
