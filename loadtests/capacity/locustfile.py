"""Locust test of a server with the traffic mix of `loadtests.common.traffic_mix`.

    LOAD_SHAPE=step LOAD_USERS=40 LOAD_SECONDS=120 LOAD_P99_MS=3000 \
        locust -f loadtests/capacity/locustfile.py --headless --host http://127.0.0.1:8000 --csv load --html load.html

Run it in the root of the repository. `loadtests.capacity.locust_settings` documents the variables; the exit status is 1
if a limit is exceeded. Refusals (429, 503) have rows of their own, and so have the stages in `Server-Timing`.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from http import HTTPStatus
from typing import Any

from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.env import Environment
from locust.stats import StatsEntry

from loadtests.capacity.locust_settings import LocustSettings
from loadtests.common.traffic_mix import TrafficMix, encode_all, request_headers

ACCEPTED = "/recognize"
REFUSED = "refused"
STAGE = "stage"

encode_all()
_SETTINGS = LocustSettings.read(os.environ)
_HEADERS = request_headers(os.environ)
_STAGES = re.compile(r"(\w+);dur=([0-9.]+)")
_REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_MAX_RETRY_AFTER = 3.0  # the server closes a connection after 5 s without a request
_seeds = itertools.count()


class LocustCaller(FastHttpUser):
    """Sends its next request when it has its answer; after a refusal it waits as `Retry-After` says, at most 3 s."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Draw requests in a different order for each caller."""
        self._mix = TrafficMix(next(_seeds))

    @task
    def recognize(self) -> None:
        """Send one request."""
        request = self._mix.draw()
        name = f"{ACCEPTED} {request.kind}"
        headers = {**_HEADERS, "Content-Type": request.content_type}
        url = f"/recognize{request.query}"
        body: Any = request.body  # locust annotates it as text, but sends bytes unchanged
        with self.client.request("POST", url, name, body, catch_response=True, headers=headers) as answer:
            fields: Any = answer.headers or {}
            if answer.status_code in _REFUSALS:
                answer.request_meta["name"] = f"{REFUSED} {answer.status_code}"
                answer.success()
            else:
                self._report_stages(fields.get("server-timing", ""))
        if answer.status_code in _REFUSALS:
            time.sleep(min(float(fields.get("retry-after", 1)), _MAX_RETRY_AFTER))

    def _report_stages(self, timing: str) -> None:
        for stage, milliseconds in _STAGES.findall(timing):
            self.environment.events.request.fire(
                request_type=STAGE,
                name=stage,
                response_time=float(milliseconds),
                response_length=0,
                exception=None,
                context={},
                start_time=time.time(),
                url=None,
                response=None,
            )


class CallersByShape(LoadTestShape):
    """The number of callers that LOAD_SHAPE has at each moment."""

    def tick(self) -> tuple[int, float] | None:
        """Number of callers, and how many are started or stopped per second; None ends the test."""
        users = _SETTINGS.users_at(time.perf_counter() - self.start_time)
        return None if users is None else (users, float(_SETTINGS.users))


def set_exit_status(environment: Environment, **_: Any) -> None:
    """Exit with 1 if a limit is exceeded, and print which."""
    accepted = StatsEntry(environment.stats, ACCEPTED, "POST")
    refused = 0
    for entry in environment.stats.entries.values():
        if entry.name.startswith(ACCEPTED):
            accepted.extend(entry)
        elif entry.name.startswith(REFUSED):
            refused += entry.num_requests
    failed = accepted.num_failures
    reasons = _SETTINGS.failures(
        accepted.num_requests - failed, refused, failed, accepted.get_response_time_percentile(0.99)
    )
    for reason in reasons:
        print(f"FAILED: {reason}", file=sys.stderr)
    environment.process_exit_code = 1 if reasons else 0


_quitting: Any = events.quitting  # its method is not annotated
_quitting.add_listener(set_exit_status)
