"""What a service has counted, read from its own metrics."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtests.traffic import headers

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The series of one scrape, without those that are zero."""

    samples: tuple[Sample, ...]

    @classmethod
    def parse(cls, text: str) -> Counts:
        """Read the text exposition format."""
        families = text_string_to_metric_families(text)
        return cls(tuple(sample for family in families for sample in family.samples if sample.value))

    def __getitem__(self, name: str) -> float:
        """The sum of a metric over all labels."""
        return sum(sample.value for sample in self.samples if sample.name == name)

    def by(self, label: str, name: str, **fixed: str) -> dict[str, int]:
        """A metric by the values of one label, where others have these values."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name and fixed.items() <= sample.labels.items():
                found[sample.labels[label]] += int(sample.value)
        return dict(found)

    def statuses(self, route: str = "/recognize") -> dict[str, int]:
        """Answered requests by status; 499 are those whose caller has left."""
        return self.by("code", "ser_http_requests_total", route=route)

    def since(self, before: Counts, route: str = "/recognize") -> dict[str, int]:
        """Answered requests by status, less those before."""
        known = before.statuses(route)
        gained = {code: count - known.get(code, 0) for code, count in self.statuses(route).items()}
        return {code: count for code, count in gained.items() if count}


def scrape(url: str, environment: Mapping[str, str] = os.environ) -> Counts:
    """What a service has counted so far; with the key in LOAD_API_KEY, which its metrics may need."""
    with httpx.Client(base_url=url, timeout=_TIMEOUT, verify=url.startswith("https")) as client:
        return Counts.parse(client.get("/metrics", headers=headers(environment)).raise_for_status().text)


def accepted_is_answered(counted: Mapping[str, int], got: Mapping[int, int]) -> bool:
    """Whether a service has counted the answers that callers got, status by status."""
    return dict(counted) == {str(status): count for status, count in got.items() if count}
