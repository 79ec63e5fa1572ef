"""Writes docs/configuration.md from the settings: `python docs/configuration.py`."""

from __future__ import annotations

from pathlib import Path

from service.settings import Settings

PAGE = Path(__file__).with_suffix(".md")

_INTRODUCTION = """# Configuration

<!-- Written by `python docs/configuration.py` from service/settings.py; a test compares. -->

A value comes from the last of these that names it: the default, a YAML file (`--config FILE` or `SER_CONFIG`), an
environment variable, a flag of `emotion2vec-service serve`. Unknown names are errors, with a suggestion.
`emotion2vec-service serve --check` prints the effective values and exits.

[configs/service.yaml](../configs/service.yaml) holds every default; [configs/cpu.yaml](../configs/cpu.yaml) and
[configs/gpu.yaml](../configs/gpu.yaml) are profiles to start from.

| YAML key | environment | flag | default | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    """The page's text."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = str(default).lower() if isinstance(default, bool) else str(default).replace(str(Path.home()), "~")
        meaning = (field.description or "").replace("|", "\\|")
        value = f"`{shown}`" if shown else "empty"
        rows.append(f"| `{name}` | `SER_{name.upper()}` | `--{name.replace('_', '-')}` | {value} | {meaning} |")
    return _INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
