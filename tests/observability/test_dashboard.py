"""The queries of the dashboard, sent to a real Prometheus after real traffic."""

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
from tests.observability.test_metrics import SERIES
from tests.observability.test_rules import rules

DOCKER = Path(__file__).resolve().parents[2] / "docker"
DASHBOARD: dict[str, Any] = json.loads(next(DOCKER.glob("grafana/dashboards/*.json")).read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
NO_DATA_WITHOUT_A_GPU = {"GPU memory"}

# What Grafana substitutes: the job, all instances, two of the routes, and an interval from the width of the panel.
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
def test_every_expression_has_a_result(observed: Observed, title: str, expression: str) -> None:
    found = observed.prometheus.query(filled_in(expression))
    assert bool(found) == (title not in NO_DATA_WITHOUT_A_GPU)


def test_variables_offer_the_existing_values(observed: Observed) -> None:
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
    assert observed.prometheus.query(annotation["expr"]) == []  # a valid query, and no alert fires


def test_expressions_use_existing_series_only() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {*SERIES, *recorded, "process_cpu_seconds_total", "process_resident_memory_bytes"}
    known |= {"process_open_fds", "process_max_fds"}
    known |= {name.removesuffix("bucket") + end for name in SERIES for end in ("sum", "count") if "_bucket" in name}
    used = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"\b(?:\w+:)?(?:ser|process)_\w+(?::\w+)?", target["expr"])
    }
    assert used <= known
    unused = SERIES.keys() - used
    shown_as_ratios = {name for name in unused if name.endswith("_limit")}
    assert unused - shown_as_ratios <= {"ser_batch_padding_ratio_bucket"}


def test_every_panel_has_a_description_and_a_unit() -> None:
    assert len(PANELS) > 20
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert Counter(target["refId"] for target in panel["targets"]).most_common(1)[0][1] == 1
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        side_by_side = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert side_by_side or above


def test_grafana_is_provisioned_with_the_dashboard_and_its_data_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert VARIABLES["datasource"]["current"]["value"] == source["uid"]
    assert VARIABLES["datasource"]["query"] == source["type"]
    scraping = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraping
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "service.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
