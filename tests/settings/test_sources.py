from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import pytest

from service.errors import SettingsInvalid
from service.settings.settings import SETTINGS, Settings
from service.settings.sources import (
    NO_FLAG,
    add_flags,
    describe_settings,
    flags_of,
    load_settings,
    load_settings_and_sources,
)

KEY = "0123456789abcdef"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_source_overrides_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "a.yaml", "port: 1\nmax_files: 2\ntimeout: 3\n")
    monkeypatch.setenv("SER_MAX_FILES", "20")
    monkeypatch.setenv("SER_TIMEOUT", "30")
    settings, sources = load_settings_and_sources(config, timeout=300)
    assert (settings.port, settings.max_files, settings.timeout, settings.threads) == (1, 20, 300.0, 0)
    assert sources == {
        "port": f"{config}: port",
        "max_files": "environment: SER_MAX_FILES",
        "timeout": "flags: timeout",
    }


EXAMPLES = {
    "allowed_hosts": "speech.example.com",
    "api_keys": KEY,
    "api_keys_file": "/run/secrets/keys",
    "cache_dir": "/cache",
    "cors_origins": "https://a.example",
    "device": "cpu",
    "host": "::",
    "model": "iic/emotion2vec_plus_large",
    "root_path": "/emotion",
    "trusted_proxies": "10.0.0.0/8",
    "uds": "/run/emotion2vec-service.sock",
}


def another_value(name: str) -> str:
    """Some value other than the default, as text; a setting without numbers or choices needs one in EXAMPLES."""
    field = SETTINGS[name]
    default: Any = field.default
    if field.type is bool:
        return str(not default).lower()
    if field.type in (int, float):
        return str(default * 2 or 1)
    choices = [choice for choice in get_args(field.type) if choice != field.default]
    return EXAMPLES[name] if name in EXAMPLES else str(choices[0])


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_can_come_from_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    value = another_value(name)
    from_file, sources = load_settings_and_sources(write(tmp_path / "a.yaml", f"{name}: '{value}'"))
    assert from_file != Settings()
    assert sources == {name: f"{tmp_path / 'a.yaml'}: {name}"}
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    flag = name.replace("_", "-")
    arguments = {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(value, [f"--{flag}", value])
    if name in NO_FLAG:  # secrets
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        message = capsys.readouterr().err
        assert f"set SER_{name.upper()} or --{flag}-file" in message
        assert value not in message
    else:
        assert load_settings(**flags_of(parser.parse_args(arguments))) == from_file
    monkeypatch.setenv(f"SER_{name.upper()}", value)
    assert load_settings_and_sources() == (from_file, {name: f"environment: SER_{name.upper()}"})


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_CONFIG", str(write(tmp_path / "a.yaml", "port: 1\n")))
    assert load_settings().port == 1
    assert load_settings(write(tmp_path / "b.yaml", "port: 2\n")).port == 2


def test_an_empty_file_and_an_empty_variable_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_PORT", "")
    assert load_settings_and_sources(write(tmp_path / "a.yaml", "# nothing\n")) == (Settings(), {})
    assert load_settings_and_sources(write(tmp_path / "a.yaml", "port: 1\n"))[1] == {
        "port": f"{tmp_path / 'a.yaml'}: port"
    }


@pytest.mark.parametrize("name", ["SER_API_KEYS", "SER_API_KEYS_FILE"])
def test_an_empty_key_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    with pytest.raises(SettingsInvalid, match=f"environment: {name} is empty; unset it"):
        load_settings()


def test_environment_values_are_converted_to_the_type_of_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_OFFLINE", "true")
    monkeypatch.setenv("SER_CACHE_DIR", "~/somewhere")
    settings = load_settings()
    assert settings.offline is True
    assert settings.cache_dir == Path.home() / "somewhere"


def test_unknown_names_are_errors_with_a_suggestion_and_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "a.yaml", "max_duratoin: 3\nPORT: 1\nserver: {port: 1}\nfrobnicate: {x: 1}\nport: 2\n")
    monkeypatch.setenv("SER_MAX_BODY_BYTE", "1")
    monkeypatch.setenv("SER_SOMETHING_ELSE_ALTOGETHER", "")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(config, thread=1)
    lines = caught.value.detail.splitlines()
    assert sorted(lines) == sorted(
        [
            f"{config}: max_duratoin is not a setting; did you mean max_duration?",
            f"{config}: PORT is not a setting",
            f"{config}: server is not a setting; settings are not grouped: move its entries to the top level",
            f"{config}: frobnicate is not a setting",
            "environment: SER_MAX_BODY_BYTE is not a setting; did you mean SER_MAX_BODY_BYTES?",
            "environment: SER_SOMETHING_ELSE_ALTOGETHER is not a setting",
            "flags: thread is not a setting; did you mean threads?",
        ]
    )


def test_all_bad_values_are_reported_at_once_with_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "a.yaml", "port: 70000\nmodel: {a: 1}\n")
    monkeypatch.setenv("SER_TIMEOUT", "soon")
    monkeypatch.setenv("SER_API_KEYS", f"{KEY},secret,{KEY}")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(config, device="tpu")
    text = caught.value.detail
    assert f"{config}: port: " in text
    assert f"{config}: model: input should be a valid string" in text
    assert "environment: SER_TIMEOUT: " in text
    assert "environment: SER_API_KEYS (entry 2): an API key has 16 to 256 characters" in text
    assert "flags: device: " in text
    for value in ("soon", "secret", KEY):
        assert value not in text


@pytest.mark.parametrize("line", ["port: yes", "timeout: on", "threads: off", "max_files: true"])
def test_words_that_yaml_reads_as_booleans_are_not_numbers(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"{line.split(':')[0]}: must be a number, not true or false"):
        load_settings(write(tmp_path / "a.yaml", line))


def test_effective_settings_are_yaml_with_sources_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(
        tmp_path / "a.yaml", f"model: 'on'\ncors_origins: ['https://a.example']\napi_keys: [{KEY}, {KEY}1]\n"
    )
    monkeypatch.setenv("SER_TIMEOUT", "7")
    settings, sources = load_settings_and_sources(config, docs=False)
    lines = list(describe_settings(settings, sources))
    assert [line.split(":")[0] for line in lines] == list(SETTINGS)
    assert KEY not in "\n".join(lines)
    shown = {line.split(":")[0]: line for line in lines}
    assert shown["port"].split() == ["port:", "8000", "#", "default"]
    assert shown["timeout"].endswith("# environment: SER_TIMEOUT")
    assert shown["docs"].startswith("docs: false ")
    assert shown["docs"].endswith("# flags: docs")
    assert shown["api_keys"].endswith(f"# {config}: api_keys")
    # The printed text is a valid file once the keys are filled in.
    again = "\n".join(lines).replace("'**********', '**********'", f"{KEY}, {KEY}1")
    assert load_settings(write(tmp_path / "b.yaml", again)) == settings
    with pytest.raises(SettingsInvalid, match="api_keys"):
        load_settings(write(tmp_path / "b.yaml", "\n".join(lines)))


def test_flags_have_the_descriptions_as_help_and_override_nothing_when_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--unrelated")
    add_flags(parser)
    help_text = "".join(parser.format_help().split())  # argparse also breaks lines at hyphens
    for name, field in SETTINGS.items():
        assert ("".join(str(field.metadata["description"]).split()) in help_text) is (name not in NO_FLAG)
    monkeypatch.setenv("SER_PORT", "81")
    assert flags_of(parser.parse_args(["--unrelated", "x"])) == {}
    arguments = parser.parse_args(["--max-duration", "5", "--no-docs", "--offline"])
    settings = load_settings(**flags_of(arguments))
    assert (settings.port, settings.max_duration, settings.docs, settings.offline) == (81, 5.0, False, True)


def test_flags_for_some_settings_only() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, ["model", "threads"])
    assert flags_of(parser.parse_args(["--model", "x"])) == {"model": "x"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--port", "1"])


def test_the_key_of_a_client_is_not_a_setting_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_API_KEY", KEY)
    assert load_settings().api_keys == ()  # commands that call a server
    with pytest.raises(SettingsInvalid, match="SER_API_KEY is not a setting; did you mean SER_API_KEYS") as caught:
        load_settings_and_sources()  # a server would be open to everybody after this spelling mistake
    assert KEY not in str(caught.value)
