"""The dashboard: what Grafana will ask, asked of a real Prometheus that has seen real traffic."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.conftest import Observed
from tests.observability.test_metrics import DESIGNED
from tests.observability.test_rules import rules

DOCKER = Path(__file__).resolve().parents[2] / "docker"
DASHBOARD: dict[str, Any] = json.loads(next(DOCKER.glob("grafana/dashboards/*.json")).read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
NO_DATA_WITHOUT_A_GPU = {"GPU memory"}

# What Grafana puts in: the job, all instances, two of the routes, and what it makes of the panel's width.
VALUES = {
    "job": "emotion2vec-service",
    "instance": ".*",
    "route": "(/recognize|/recognize/batch)",
    "__rate_interval": "1m",
}


def filled_in(text: str) -> str:
    return re.sub(r"\$(\w+)", lambda match: VALUES[match[1]], text)


def expressions() -> list[Any]:
    """One test parameter for each expression of each panel."""
    return [
        pytest.param(panel["title"], target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ]


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_every_expression_gives_something(observed: Observed, title: str, expression: str) -> None:
    found = observed.prometheus.query(filled_in(expression))
    assert bool(found) == (title not in NO_DATA_WITHOUT_A_GPU)


def test_the_variables_offer_what_there_is(observed: Observed) -> None:
    offered = {}
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match
            series = observed.prometheus.api("series", **{"match[]": filled_in(match[1])})
            offered[name] = {labels[match[2]] for labels in series}
    assert offered["job"] == {VARIABLES["job"]["current"]["value"]}
    assert len(offered["instance"]) == 1
    assert offered["route"] > {*VARIABLES["route"]["current"]["value"], "/recognize/batch"}


def test_alerts_are_shown_on_the_panels(observed: Observed) -> None:
    (annotation,) = DASHBOARD["annotations"]["list"]
    assert observed.prometheus.query(annotation["expr"]) == []  # it is a valid question, and nothing is wrong


def test_only_series_that_exist_are_asked_for() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {*DESIGNED, *recorded, "process_cpu_seconds_total", "process_resident_memory_bytes"}
    known |= {"process_open_fds", "process_max_fds"}
    known |= {name.removesuffix("bucket") + end for name in DESIGNED for end in ("sum", "count") if "_bucket" in name}
    asked = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"\b(?:\w+:)?(?:ser|process)_\w+(?::\w+)?", target["expr"])
    }
    assert asked <= known
    unused = DESIGNED.keys() - asked
    shown_as_ratios = {name for name in unused if name.endswith("_limit")}
    assert unused - shown_as_ratios <= {"ser_batch_padding_ratio_bucket"}


def test_every_panel_says_what_it_shows() -> None:
    assert len(PANELS) > 20
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert Counter(target["refId"] for target in panel["targets"]).most_common(1)[0][1] == 1
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_cover_one_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_grafana_finds_the_dashboard_and_its_data() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert VARIABLES["datasource"]["current"]["value"] == source["uid"]
    assert VARIABLES["datasource"]["query"] == source["type"]
    scraping = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraping
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "service.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
