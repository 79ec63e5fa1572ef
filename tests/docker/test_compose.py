"""The Compose file against the schema of the Compose specification, and against the rest of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings.settings import ENV_PREFIX, SETTINGS, Settings
from tests.docker.image import ROOT, last, stages

COMPOSE = ROOT / "docker" / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("emotion2vec-service")]
ANSWERING = [name for name in OURS if "ports" in SERVICES[name]]


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_file_is_valid_compose(tmp_path: Path) -> None:
    run = validate(COMPOSE)
    assert run.returncode == 0, run.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("read_only: true", "readonly: true"), encoding="utf-8")
    assert validate(wrong).returncode == 1


def test_each_profile_has_one_service_that_prometheus_scrapes_and_cpu_is_the_default() -> None:
    assert {profile: name for name in ANSWERING for profile in SERVICES[name]["profiles"]} == {
        "cpu": "service-cpu",
        "gpu": "service-gpu",
    }
    assert (COMPOSE.parent / ".env").read_text(encoding="utf-8").split() == ["COMPOSE_PROFILES=cpu"]
    prometheus = yaml.safe_load((COMPOSE.parent / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = [
        target
        for job in prometheus["scrape_configs"]
        for config in job.get("static_configs", [])
        for target in config["targets"]
    ]
    for name in ANSWERING:
        (alias,) = SERVICES[name]["networks"]["default"]["aliases"]
        assert f"{alias}:8000" in targets


@pytest.mark.parametrize("name", OURS)
def test_our_containers_build_from_the_dockerfile_with_few_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["build"]["target"] in stages()
    assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Only the volumes of the image are writable.
    targets = {volume.split(":")[1] for volume in service["volumes"]} | {
        mount.split(":")[0] for mount in service["tmpfs"]
    }
    assert targets == set(last(service["build"]["target"], "VOLUME"))


@pytest.mark.parametrize("name", ANSWERING)
def test_the_service_has_time_to_drain(name: str) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout + 10


@pytest.mark.parametrize("name", ANSWERING)
def test_the_variables_are_settings(name: str) -> None:
    variables = SERVICES[name]["environment"]
    assert variables
    assert {variable.removeprefix(ENV_PREFIX).lower() for variable in variables} <= SETTINGS.keys()


def test_ports_are_published_on_the_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) >= 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_third_party_images_are_pinned() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert len(images) == 2
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image) for image in images)


def test_monitoring_files_are_mounted_where_the_containers_read_them() -> None:
    prometheus, grafana = SERVICES["prometheus"], SERVICES["grafana"]
    assert "--config.file=/etc/prometheus/prometheus.yaml" in prometheus["command"]
    assert "./prometheus:/etc/prometheus:ro" in prometheus["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    assert "./grafana/dashboards:/var/lib/grafana/dashboards:ro" in grafana["volumes"]
