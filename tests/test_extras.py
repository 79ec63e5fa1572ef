from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from service import extras
from service.errors import MissingExtra
from service.extras import extra


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("torch", "torch"),
        ("torch", "onnx"),
        ("torch", "modelscope_hub"),
        ("otel", "opentelemetry.sdk"),
        ("parquet", "pyarrow"),
        ("mic", "sounddevice"),
    ],
)
def test_the_message_names_the_missing_module_and_the_extra(name: str, module: str) -> None:
    with pytest.raises(MissingExtra) as caught, extra(name, "This needs"):
        raise ModuleNotFoundError(name=module)
    command = f"in a checkout of the service: pip install ./client '.[{name}]'"
    assert caught.value.detail == f"This needs {module}, which is not installed; {command}"


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, extra("torch", "Preparing needs"):
        raise ModuleNotFoundError(name="numpy")
    assert caught.value.name == "numpy"


def test_every_extra_is_one_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert extras._PACKAGES.keys() <= project["optional-dependencies"].keys()
