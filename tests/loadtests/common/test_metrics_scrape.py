from collections import Counter

from prometheus_client import CollectorRegistry, generate_latest

from loadtests.common.metrics_scrape import MetricsScrape, same_counts
from service.observability.metrics import Metrics


def scrape_of(**answers: int) -> MetricsScrape:
    metrics = Metrics(CollectorRegistry())
    for code, count in answers.items():
        metrics.http_requests.labels("/recognize", "POST", code.removeprefix("c")).inc(count)
    metrics.http_requests.labels("/livez", "GET", "200").inc(7)
    metrics.requests_rejected.labels("queue_full").inc(2)
    return MetricsScrape.parse(generate_latest(metrics.registry).decode())


def test_samples_are_summed_by_name_and_label() -> None:
    found = scrape_of(c200=3, c429=2)
    assert found["ser_http_requests_total"] == 12
    assert found["ser_predictions_total"] == 0
    assert found.statuses() == {"200": 3, "429": 2}
    assert found.by("reason", "ser_requests_rejected_total") == {"queue_full": 2}
    assert found.since(scrape_of(c200=1, c429=2)) == {"200": 2}


def test_counts_are_compared_by_status() -> None:
    assert same_counts({"200": 2, "429": 1}, Counter({200: 2, 429: 1, 503: 0}))
    assert not same_counts({"200": 2}, Counter({200: 1}))
    assert not same_counts({"200": 2, "499": 1}, Counter({200: 2}))
