"""The metrics of a service (`GET /metrics`), scraped and parsed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtests.common.traffic_mix import request_headers

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class MetricsScrape:
    """The samples of one scrape, without those that are zero."""

    samples: tuple[Sample, ...]

    @classmethod
    def parse(cls, text: str) -> MetricsScrape:
        """Parse the text exposition format of Prometheus."""
        families = text_string_to_metric_families(text)
        return cls(tuple(sample for family in families for sample in family.samples if sample.value))

    def __getitem__(self, name: str) -> float:
        """The sum of a metric over all labels."""
        return sum(sample.value for sample in self.samples if sample.name == name)

    def by(self, label: str, name: str, **fixed: str) -> dict[str, int]:
        """A metric by the values of `label`, of the samples whose other labels have the values in `fixed`."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name and fixed.items() <= sample.labels.items():
                found[sample.labels[label]] += int(sample.value)
        return dict(found)

    def statuses(self, route: str = "/recognize") -> dict[str, int]:
        """Answered requests by status; 499 means that the caller has disconnected."""
        return self.by("code", "ser_http_requests_total", route=route)

    def since(self, before: MetricsScrape, route: str = "/recognize") -> dict[str, int]:
        """Requests answered after the scrape `before`, by status."""
        known = before.statuses(route)
        gained = {code: count - known.get(code, 0) for code, count in self.statuses(route).items()}
        return {code: count for code, count in gained.items() if count}


def scrape(url: str, environment: Mapping[str, str] = os.environ) -> MetricsScrape:
    """Scrape a service; the API key is LOAD_API_KEY."""
    with httpx.Client(base_url=url, timeout=_TIMEOUT, verify=url.startswith("https")) as client:
        return MetricsScrape.parse(client.get("/metrics", headers=request_headers(environment)).raise_for_status().text)


def same_counts(counted: Mapping[str, int], received: Mapping[int, int]) -> bool:
    """Whether a service has counted, status by status, as many answers as its callers have received."""
    return dict(counted) == {str(status): count for status, count in received.items() if count}
