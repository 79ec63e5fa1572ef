from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.errors import SettingsInvalid
from service.settings.settings import SETTINGS, Settings
from service.settings.sources import load_settings
from service.settings.validation import validated

CONFIGS = Path(__file__).parents[2] / "configs"


def test_defaults() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.model, settings.host, settings.port) == ("tiny", "127.0.0.1", 8000)
    assert settings.max_body_bytes == 256 * 1024 * 1024
    assert settings.keep_alive_timeout > 60, "nginx and load balancers keep their connections for 60 s"
    assert settings.cache_dir.is_absolute()


def test_service_yaml_contains_the_defaults_of_all_settings() -> None:
    written = yaml.safe_load((CONFIGS / "service.yaml").read_text(encoding="utf-8"))
    assert list(written) == list(SETTINGS)
    assert load_settings(CONFIGS / "service.yaml") == Settings()


PROFILES = ("cpu", "gpu")
REQUIRED = {"backend", "device", "dtype", "max_in_flight", "max_queue_requests", "max_queue_seconds", "decode_threads"}
"""Settings that every profile must contain, even with the default value."""


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_contain_the_settings_that_depend_on_the_machine(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written.keys() >= REQUIRED
    settings = load_settings(path)
    changed = {field for field in SETTINGS if getattr(settings, field) != getattr(Settings(), field)}
    assert changed
    assert changed <= written.keys()


@pytest.mark.parametrize("name", PROFILES)
def test_suggestions_in_comments_of_profiles_are_valid(tmp_path: Path, name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    suggested = re.sub(r"^# (?=[a-z_]+: )", "", text, flags=re.MULTILINE)
    assert suggested != text
    whole = tmp_path / "all.yaml"
    whole.write_text(suggested, encoding="utf-8")
    settings = load_settings(whole)
    assert settings.needs_key
    assert settings.rate_limit


@pytest.mark.parametrize("name", ["service", *PROFILES])
def test_every_group_of_values_has_a_comment(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert [group for group in text.split("\n\n") if not group.startswith("#")] == []


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
        ("max_utterance_duration", 0),
        ("max_queue_seconds", 10),  # less than max_utterance_duration
        ("segment_timeout", 0),
        ("max_segment_requests", 0),
        ("decode_threads", 0),
        ("log_level", "loud"),
        ("docs", "perhaps"),
        ("rate_limit", -1),
        ("rate_burst", 0),
        ("keep_alive_timeout", 0),
        ("max_header_bytes", 100),
        ("max_headers", 0),
        ("trusted_proxies", "*"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("trusted_proxies", "proxy.internal"),
        ("allowed_hosts", "https://example.com"),
        ("allowed_hosts", "example.com:80"),
        ("allowed_hosts", "*example.com"),
        ("allowed_hosts", "a.*.com"),
        ("allowed_hosts", "::1"),
        ("cors_origins", "*"),
        ("cors_origins", "null"),
        ("cors_origins", "app.example.com"),
        ("cors_origins", "https://app.example.com/"),
        ("cors_origins", "https://*.example.com"),
        ("cors_origins", "https://a.example.com,"),
        ("cors_origins", "file://"),
        ("cors_origins", "://localhost"),
        ("cors_origins", "capacitor://localhost/"),
        ("api_keys", ""),
        ("api_keys", "k" * 15),
        ("api_keys", "k" * 257),
        ("api_keys", "k" * 16 + ",,"),
        ("api_keys", "spaces are not allowed"),
        ("api_keys", ["k" * 16, 1234567890123456]),
    ],
)
def test_bounds(name: str, value: Any) -> None:
    with pytest.raises(SettingsInvalid):
        load_settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("cors_origins", "https://a.example, http://localhost:3000", ["https://a.example", "http://localhost:3000"]),
        ("cors_origins", "http://[::1]:3000", ["http://[::1]:3000"]),
        ("cors_origins", "capacitor://localhost,tauri://localhost", ["capacitor://localhost", "tauri://localhost"]),
        ("allowed_hosts", "a.example, *.b.example,[::1],*", ["a.example", "*.b.example", "[::1]", "*"]),
        ("trusted_proxies", "127.0.0.1,::1,10.0.0.0/8", ["127.0.0.1/32", "::1/128", "10.0.0.0/8"]),
        ("api_keys", "0123456789abcdef, ABC.~_+/-0123456==", ["**********", "**********"]),
    ],
)
def test_lists_can_be_given_as_text_with_commas(name: str, text: str, values: list[str]) -> None:
    as_text: dict[str, Any] = {name: text}
    as_list: dict[str, Any] = {name: [part.strip() for part in text.split(",")]}
    settings = load_settings(**as_text)
    assert [str(value) for value in getattr(settings, name)] == values
    assert load_settings(**as_list) == settings


def test_printed_settings_do_not_contain_keys() -> None:
    key = "0123456789abcdef"
    settings = load_settings(api_keys=key)
    assert settings.api_keys[0].get_secret_value() == key
    assert settings.needs_key
    for text in (repr(settings), str(settings), str(asdict(settings))):
        assert key not in text


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert load_settings(device=device).device == device


def test_an_unknown_home_directory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(SettingsInvalid, match="the home directory is not known"):
        load_settings(cache_dir="~/models")
    assert load_settings().cache_dir == Path("~/.cache/emotion2vec-service")  # the embedded model needs none


@pytest.mark.parametrize(("in_flight", "limit", "permits"), [(64, 8, 8), (8, 8, 7), (2, 8, 1), (1, 8, 1)])
def test_segment_requests_leave_one_permit_for_others(in_flight: int, limit: int, permits: int) -> None:
    assert load_settings(max_in_flight=in_flight, max_segment_requests=limit).segment_permits == permits


def test_the_queue_must_hold_the_longest_clip_but_not_the_longest_file() -> None:
    assert load_settings(max_queue_seconds=300).longest_clip == 300
    assert load_settings(max_queue_seconds=20, max_duration=20).longest_clip == 20
    with pytest.raises(SettingsInvalid, match="max_utterance_duration"):
        load_settings(max_queue_seconds=20, max_duration=21)


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # which is the test


def test_every_setting_is_documented_and_bounded() -> None:
    for name, field in SETTINGS.items():
        assert field.metadata["description"].endswith("."), name
        if field.type in (int, float):
            assert {"ge", "gt"} & field.metadata["limits"].keys(), name
            assert "le" in field.metadata["limits"], name


def test_every_default_is_valid() -> None:
    defaults = {name: field.default for name, field in SETTINGS.items()}
    assert Settings(**validated(defaults, {})) == Settings()
