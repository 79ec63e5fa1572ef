from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from service.errors import SettingsInvalid
from service.settings import Settings, add_flags, flags_of, load_settings

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SER_"):
            monkeypatch.delenv(name)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.model, settings.host, settings.port) == ("tiny", "127.0.0.1", 8000)
    assert settings.max_body_bytes == 64 * 1024 * 1024
    assert settings.cache_dir.is_absolute()


def test_service_yaml_holds_exactly_the_defaults_of_all_settings() -> None:
    written = yaml.safe_load((CONFIGS / "service.yaml").read_text(encoding="utf-8"))
    assert list(written) == list(Settings.model_fields)
    assert load_settings(CONFIGS / "service.yaml") == Settings()


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_profiles_load_and_change_something(name: str) -> None:
    assert load_settings(CONFIGS / f"{name}.yaml") != Settings()


def test_each_source_overrides_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.yaml", "port: 1\nmax_files: 2\ntimeout: 3\n")
    monkeypatch.setenv("SER_MAX_FILES", "20")
    monkeypatch.setenv("SER_TIMEOUT", "30")
    settings = load_settings(config, timeout=300)
    assert (settings.port, settings.max_files, settings.timeout, settings.threads) == (1, 20, 300.0, 0)


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_CONFIG", str(write(tmp_path / "a.yaml", "port: 1\n")))
    assert load_settings().port == 1
    assert load_settings(write(tmp_path / "b.yaml", "port: 2\n")).port == 2


def test_an_empty_file_and_an_empty_variable_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_PORT", "")
    assert load_settings(write(tmp_path / "a.yaml", "# nothing\n")) == Settings()


def test_text_from_the_environment_becomes_the_type_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_OFFLINE", "true")
    monkeypatch.setenv("SER_CACHE_DIR", "~/somewhere")
    settings = load_settings()
    assert settings.offline is True
    assert settings.cache_dir == Path.home() / "somewhere"


def test_unknown_names_are_errors_that_suggest_and_name_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "a.yaml", "max_duratoin: 3\nPORT: 1\n")
    monkeypatch.setenv("SER_MAX_BODY_BYTE", "1")
    monkeypatch.setenv("SER_SOMETHING_ELSE_ALTOGETHER", "1")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(config, thread=1)
    lines = caught.value.detail.splitlines()
    assert sorted(lines) == sorted(
        [
            f"{config}: max_duratoin is not a setting; did you mean max_duration?",
            f"{config}: PORT is not a setting",
            "environment: SER_MAX_BODY_BYTE is not a setting; did you mean SER_MAX_BODY_BYTES?",
            "environment: SER_SOMETHING_ELSE_ALTOGETHER is not a setting",
            "flags: thread is not a setting; did you mean threads?",
        ]
    )


def test_bad_values_name_their_source_and_all_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.yaml", "port: 70000\n")
    monkeypatch.setenv("SER_TIMEOUT", "soon")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(config, device="tpu")
    text = caught.value.detail
    assert f"{config}: port: " in text
    assert "environment: SER_TIMEOUT: " in text
    assert "flags: device: " in text
    assert "soon" not in text  # a value may be a secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("host", ""),
        ("root_path", "no-slash"),
        ("root_path", "/trailing/"),
        ("backend", "tensorflow"),
        ("device", "cuda:x"),
        ("dtype", "fp8"),
        ("threads", -1),
        ("max_body_bytes", 0),
        ("max_files", 0),
        ("max_duration", 0),
        ("max_duration", float("nan")),
        ("timeout", 0),
        ("timeout", float("inf")),
        ("max_in_flight", 0),
        ("max_queue_seconds", 10),  # less than max_duration
        ("decode_threads", 0),
        ("log_level", "loud"),
        ("docs", "perhaps"),
    ],
)
def test_bounds(name: str, value: Any) -> None:
    with pytest.raises(SettingsInvalid):
        load_settings(**{name: value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert load_settings(device=device).device == device


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- port\n- 1\n", "one mapping"),
        ("1: 2\n", "one mapping"),
        ("port: [\n", "not valid YAML"),
        ("port: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_files_that_are_not_settings(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsInvalid, match=reason):
        load_settings(write(tmp_path / "a.yaml", text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read: No such file"):
        load_settings(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(SettingsInvalid, match="not UTF-8"):
        load_settings(tmp_path / "latin.yaml")


def test_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(SettingsInvalid, match="the home directory is not known"):
        load_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_is_documented_and_bounded() -> None:
    schema = Settings.model_json_schema()["properties"]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        if schema[name].get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & schema[name].keys(), name
            assert "maximum" in schema[name], name


def test_flags_have_the_descriptions_as_help_and_hide_nothing_when_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--unrelated")
    add_flags(parser)
    help_text = " ".join(parser.format_help().split())
    for field in Settings.model_fields.values():
        assert " ".join(str(field.description).split()) in help_text
    monkeypatch.setenv("SER_PORT", "81")
    assert flags_of(parser.parse_args(["--unrelated", "x"])) == {}
    arguments = parser.parse_args(["--max-duration", "5", "--no-docs", "--offline"])
    settings = load_settings(**flags_of(arguments))
    assert (settings.port, settings.max_duration, settings.docs, settings.offline) == (81, 5.0, False, True)


def test_flags_for_some_settings_only() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, ["model", "threads"])
    assert flags_of(parser.parse_args(["--model", "x"])) == {"model": "x"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--port", "1"])
