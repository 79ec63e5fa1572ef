from __future__ import annotations

import pytest

from service.inference.request_queue import Throughput


def test_without_experience_come_back_in_a_second() -> None:
    assert Throughput().retry_after(1000.0) == 1.0


def test_the_queue_divided_by_the_speed() -> None:
    throughput = Throughput()
    throughput.observe(audio=40.0, wall=2.0)
    assert throughput.retry_after(100.0) == pytest.approx(5.0)


def test_a_wait_is_expected_only_with_experience() -> None:
    throughput = Throughput()
    assert throughput.expected(100.0) is None
    throughput.observe(audio=40.0, wall=2.0)
    assert throughput.expected(0.0) == 0.0
    assert throughput.expected(10.0) == pytest.approx(0.5)


def test_is_clamped() -> None:
    throughput = Throughput()
    throughput.observe(audio=1.0, wall=1.0)
    assert throughput.retry_after(0.0) == 1.0
    assert throughput.retry_after(1e9) == 60.0


def test_follows_the_recent_runs() -> None:
    throughput = Throughput()
    throughput.observe(audio=1.0, wall=1.0)
    for _ in range(100):
        throughput.observe(audio=10.0, wall=1.0)
    assert throughput.retry_after(100.0) == pytest.approx(10.0, rel=1e-3)
