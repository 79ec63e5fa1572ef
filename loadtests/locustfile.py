"""Load over HTTP, with a mix of lengths, codecs and options.

    LOAD_SHAPE=step LOAD_USERS=40 LOAD_SECONDS=120 LOAD_P99_MS=3000 \
        locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000 --csv load --html load.html

To be run in the root of the repository. `loadtests.traffic.Settings` says which variables there are; the exit status is
1 where a limit is passed. Refusals (429, 503) are rows of their own, and so are the stages that the service reports in
`Server-Timing`.
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

from loadtests import traffic
from loadtests.traffic import Mix, Settings

ACCEPTED = "/recognize"
REFUSED = "refused"
STAGE = "stage"

traffic.encode_all()
_SETTINGS = Settings.read(os.environ)
_HEADERS = traffic.headers(os.environ)
_STAGES = re.compile(r"(\w+);dur=([0-9.]+)")
_REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_LONGEST_WAIT = 3.0  # the server closes a connection that rests for 5 s
_seeds = itertools.count()


class Caller(FastHttpUser):
    """Sends the next request when it has its answer; one that was refused waits as it was told to."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Each caller has an order of its own."""
        self._mix = Mix(next(_seeds))

    @task
    def recognize(self) -> None:
        """One request."""
        call = self._mix.draw()
        name = f"{ACCEPTED} {call.kind}"
        headers = {**_HEADERS, "Content-Type": call.content_type}
        url = f"/recognize{call.query}"
        body: Any = call.body  # annotated as text, but sent as it is
        with self.client.request("POST", url, name, body, catch_response=True, headers=headers) as answer:
            fields: Any = answer.headers or {}
            if answer.status_code in _REFUSALS:
                answer.request_meta["name"] = f"{REFUSED} {answer.status_code}"
                answer.success()
            else:
                self._report_stages(fields.get("server-timing", ""))
        if answer.status_code in _REFUSALS:
            time.sleep(min(float(fields.get("retry-after", 1)), _LONGEST_WAIT))

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


class Callers(LoadTestShape):
    """As many callers as the shape in the environment has at this time."""

    def tick(self) -> tuple[int, float] | None:
        """Number of callers, and how many of them come or go a second; None ends the test."""
        users = _SETTINGS.users_at(time.perf_counter() - self.start_time)
        return None if users is None else (users, float(_SETTINGS.users))


def decide(environment: Environment, **_: Any) -> None:
    """Set the exit status by what was found."""
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


_quitting: Any = events.quitting  # its method has no annotations
_quitting.add_listener(decide)
