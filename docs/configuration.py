"""Writes docs/configuration.md from the settings: `python docs/configuration.py`."""

from __future__ import annotations

from pathlib import Path

from service.settings.settings import Settings
from service.settings.sources import NO_FLAG, shown_default

PAGE = Path(__file__).with_suffix(".md")

_INTRODUCTION = """# Configuration

<!-- Written by `python docs/configuration.py` from service/settings/settings.py; a test compares. -->

A value comes from the last of these that names it: the default, a YAML file (`--config FILE` or `SER_CONFIG`), an
environment variable, a flag of `emotion2vec-service serve`. Unknown names are errors, with a suggestion.
`emotion2vec-service serve --check` checks everything, prints the effective values and where each came from, with
secrets hidden, and exits.

Lists are YAML lists, or texts with commas in variables and flags. YAML files hold plain values: repeated keys, anchors
and tags are errors, and so are more than 64 KiB. An empty variable counts as absent, except for API keys, where it is
an error. [Security](security.md) says what each limit protects from.

[configs/service.yaml](../configs/service.yaml) holds every default; [configs/cpu.yaml](../configs/cpu.yaml) and
[configs/gpu.yaml](../configs/gpu.yaml) are profiles to start from.

| YAML key | environment | flag | default | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    """The page's text."""
    rows = []
    for name, field in Settings.model_fields.items():
        shown = shown_default(field)
        value = shown if shown == "empty" else f"`{shown}`"
        flag = "none" if name in NO_FLAG else f"`--{name.replace('_', '-')}`"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | `SER_{name.upper()}` | {flag} | {value} | {meaning} |")
    return _INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
