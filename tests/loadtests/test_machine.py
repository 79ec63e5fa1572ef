import pytest
import yaml

from loadtests import checkpoint, machine
from service.model.config import ModelConfig


def test_operations_of_the_published_model() -> None:
    published = yaml.safe_load((checkpoint.DATA / "config.yaml").read_text(encoding="utf-8"))
    config = ModelConfig.from_hub(published["model_conf"])
    # Counted by hand, block by block, for 249 frames and 259 tokens.
    assert machine.operations(config, 5.0) == pytest.approx(109, abs=1)


def test_settings_of_the_caller_do_not_reach_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_THREADS", "1")
    monkeypatch.setenv("OTHER", "1")
    assert "SER_THREADS" not in machine.clean_environment()
    assert machine.clean_environment()["OTHER"] == "1"


def test_facts_name_machine_and_versions() -> None:
    facts = machine.facts()
    assert f"{machine.cores()} cores" in facts["CPU"]
    assert "onnxruntime" in facts["versions"]
