"""The Kubernetes manifests against the schemas of Kubernetes, and against the rest of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from service.api.app import create_app
from service.observability.metrics import Metrics
from service.settings.settings import ENV_PREFIX, Settings
from service.settings.sources import load_settings
from tests.api.double import RecognizerDouble
from tests.docker.image import ROOT, chain, last
from tests.observability.test_metrics import STATE

MANIFESTS = ROOT / "docker" / "kubernetes"
OVERLAYS = ("base", "large-model", "gpu")
OLDEST = "1.34"
"""The first version that supports every used feature without a feature gate (the sleep before stopping)."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, to render kustomizations")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kustomization(overlay: str) -> dict[str, Any]:
    (document,) = documents(MANIFESTS / overlay / "kustomization.yaml")
    return document


def manifests() -> list[dict[str, Any]]:
    """Every document that is not a patch."""
    return [
        document
        for overlay in OVERLAYS
        for name in kustomization(overlay)["resources"]
        if name.endswith(".yaml")
        for document in documents(MANIFESTS / overlay / name)
    ]


@cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    command = ["kubectl", "kustomize", str(MANIFESTS / overlay)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def by_kind(kind: str, of: list[dict[str, Any]] | tuple[dict[str, Any], ...] | None = None) -> dict[str, Any]:
    (document,) = [each for each in (manifests() if of is None else of) if each["kind"] == kind]
    return document


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def check(documents: Iterable[dict[str, Any]], version: str) -> None:
    """Validate documents of Kubernetes' own kinds against its schemas; unknown fields are errors."""
    for document in documents:
        if document["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_manifest_fits_its_schema(version: str) -> None:
    found = manifests()
    assert {document["kind"] for document in found} == {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "HorizontalPodAutoscaler",
        "ServiceMonitor",
        "PersistentVolumeClaim",
        "Job",
    }
    check(found, version)


def test_unknown_fields_fail_validation() -> None:
    document = by_kind("Deployment")
    with pytest.raises(kubernetes_validate.ValidationError, match="selectors"):
        check([{**document, "spec": {**document["spec"], "selectors": {}}}], OLDEST)


@pytest.mark.slow  # these models take seconds to import
def test_the_monitor_fits_the_schema_of_the_prometheus_operator() -> None:
    from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

    document = by_kind("ServiceMonitor")
    ServiceMonitor.model_validate(document, extra="forbid")
    with pytest.raises(ValidationError, match="selectors"):
        ServiceMonitor.model_validate({**document, "spec": {**document["spec"], "selectors": {}}}, extra="forbid")


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_overlays_fit_the_schemas(overlay: str) -> None:
    check(rendered(overlay), OLDEST)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_file_is_listed_in_its_kustomization(overlay: str) -> None:
    listed = kustomization(overlay)
    names = [*listed["resources"], *(patch["path"] for patch in listed.get("patches", []))]
    files = {path.name for path in (MANIFESTS / overlay).iterdir()} - {"kustomization.yaml"}
    assert {name for name in names if name.endswith(".yaml")} == files
    assert all((MANIFESTS / overlay / name).exists() for name in names)


def test_selectors_match_the_pods() -> None:
    labels = by_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    service = by_kind("Service")
    selectors = [
        by_kind("Deployment")["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        by_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        by_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert by_kind("ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert by_kind("Job")["spec"]["template"]["metadata"]["labels"] != labels, "the policy would cut its network off"
    (port,) = container(by_kind("Deployment"))["ports"]
    assert str(port["containerPort"]) in last("cpu", "EXPOSE")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_pod_has_time_to_drain() -> None:
    deployment = by_kind("Deployment")
    service = container(deployment)
    pause = service["lifecycle"]["preStop"]["sleep"]["seconds"]
    (drain,) = [float(each["value"]) for each in service["env"] if each["name"] == "SER_DRAIN_TIMEOUT"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause + drain + 10


def test_probes_and_monitor_use_paths_that_are_served() -> None:
    app = create_app(RecognizerDouble(), Settings(), Metrics(CollectorRegistry()))
    paths = {
        name: container(by_kind("Deployment"))[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}
    (endpoint,) = by_kind("ServiceMonitor")["spec"]["endpoints"]
    assert {*paths.values(), endpoint["path"]} <= app.openapi()["paths"].keys()


def test_the_environment_is_valid_for_the_settings() -> None:
    deployment = by_kind("Deployment")
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False
    variables = {each["name"]: each for each in container(deployment)["env"]}
    keys = variables.pop("SER_API_KEYS")
    assert keys["valueFrom"]["secretKeyRef"]["optional"] is True
    (patch,) = documents(MANIFESTS / "large-model" / "serve.yaml")
    variables |= {each["name"]: each for each in container(patch)["env"]}
    values = {name.removeprefix(ENV_PREFIX).lower(): each["value"] for name, each in variables.items()}
    settings = load_settings(**values)
    assert (settings.offline, settings.model) == (True, "iic/emotion2vec_plus_large")


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_as_restricted_as_the_image_allows(overlay: str) -> None:
    for document in rendered(overlay):
        if document["kind"] not in ("Deployment", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == last("cpu", "USER")[0]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"]["memory"]
            mounts = {mount["mountPath"] for mount in each["volumeMounts"]}
            assert mounts <= set(last("cpu", "VOLUME"))


@needs_kubectl
def test_overlays_serve_the_large_model_from_the_image_that_fits() -> None:
    for overlay, tag in (("base", "cpu"), ("large-model", "cpu"), ("gpu", "cuda")):
        service = container(by_kind("Deployment", rendered(overlay)))
        assert service["image"].endswith(f"/emotion2vec-service:{tag}")
        models = [each["value"] for each in service["env"] if each["name"] == "SER_MODEL"]
        assert models == ["tiny" if overlay == "base" else "iic/emotion2vec_plus_large"]
        assert service["resources"]["limits"].get("nvidia.com/gpu") == ("1" if overlay == "gpu" else None)
    for overlay in ("large-model", "gpu"):
        job = container(by_kind("Job", rendered(overlay)))
        assert job["image"].endswith(":cuda"), "only that one can prepare models"
        assert job["args"] == ["models", "pull", "iic/emotion2vec_plus_large"]
        volumes = by_kind("Deployment", rendered(overlay))["spec"]["template"]["spec"]["volumes"]
        (cache,) = [volume for volume in volumes if volume["name"] == "cache"]
        # Programs that torch compiles for a GPU are stored next to the model, so the volume is writable there.
        claim = {"claimName": "emotion2vec-models", "readOnly": overlay != "gpu"}
        assert cache == {"name": "cache", "persistentVolumeClaim": claim}


def test_pods_wait_until_the_model_is_prepared(tmp_path: Path) -> None:
    (patch,) = documents(MANIFESTS / "large-model" / "serve.yaml")
    (waiting,) = patch["spec"]["template"]["spec"]["initContainers"]
    shell, flag, loop = waiting["command"]
    (condition,) = re.findall("until (.*?); do", loop)
    # The embedded model is present, so a loop that waits for it ends; the large model is not.
    for model, status in (("tiny", 0), ("iic/emotion2vec_plus_large", 1)):
        command = condition.replace("iic/emotion2vec_plus_large", model)
        command = command.replace("emotion2vec-service", f"{sys.executable} -m service.cli")
        env = os.environ | {"SER_CACHE_DIR": str(tmp_path)}
        run = subprocess.run([shell, flag, command], env=env, capture_output=True, check=False, timeout=60)
        assert run.returncode == status


def test_the_autoscaler_and_its_adapter_read_a_metric_that_exists(tmp_path: Path) -> None:
    (metric,) = by_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    registry = CollectorRegistry()
    Metrics(registry).follow_engine(lambda: STATE)
    assert registry.get_sample_value(name) == STATE.queued_seconds
    (values,) = documents(MANIFESTS / "prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    assert rule["seriesQuery"].startswith(name + "{")
    assert rule["name"] == {"matches": name, "as": name}
    # The adapter fills in its template like this.
    filled = {"Series": name, "LabelMatchers": 'namespace="default",pod=~"a|b"', "GroupBy": "pod"}
    query = re.sub(r"<<\.(\w+)>>", lambda found: filled[found[1]], rule["metricsQuery"])
    assert "<<" not in query
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; the queries are not parsed")
    rules = [{"record": "a:b", "expr": expression} for expression in (query, rule["seriesQuery"])]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": rules}]}), encoding="utf-8")
    run = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, check=False, timeout=30)
    assert run.returncode == 0, run.stdout


def test_the_image_of_the_job_has_torch_for_preparing() -> None:
    assert any("requirements.py torch" in step.value[0] for step in chain("cuda") if step.name == "RUN")
