import pytest

from loadtests.common import machine


def test_settings_of_the_service_are_removed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_THREADS", "1")
    monkeypatch.setenv("OTHER", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert machine.clean_environment().keys().isdisjoint({"SER_THREADS", "PYTHONDONTWRITEBYTECODE"})
    assert machine.clean_environment()["OTHER"] == "1"


def test_facts_name_machine_and_versions() -> None:
    facts = machine.facts()
    assert f"{machine.cores()} cores" in facts["CPU"]
    assert "onnxruntime" in facts["versions"]
