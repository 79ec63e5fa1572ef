"""Fixtures of the tests on a GPU. They import torch only when used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.model.manifest import Manifest
from service.model.store import find
from service.results import ClipOutput

if TYPE_CHECKING:
    from service.inference.backends.torch_backend import TorchBackend


@pytest.fixture(scope="module")
def tiny() -> tuple[Path, Manifest]:
    """The embedded model, which is trained, so that small errors stay small in its scores."""
    stored = find("tiny", cache=Path("/nonexistent"), offline=True)
    return stored.directory, stored.manifest


@pytest.fixture(scope="module")
def expected(tiny: tuple[Path, Manifest]) -> list[ClipOutput]:
    """The CPU's answers to `MIXED`, clip by clip."""
    from service.inference.backends.torch_backend import TorchBackend
    from tests.inference.cuda.comparing import MIXED

    return list(TorchBackend(*tiny).run(MIXED).clips)


@pytest.fixture
def compiled(tiny: tuple[Path, Manifest]) -> Iterator[TorchBackend]:
    """The backend with default settings but fewer programs; only one may exist at a time."""
    from service.inference.backends.torch_backend import TorchBackend
    from tests.inference.cuda.comparing import FEW

    backend = TorchBackend(*tiny, device="cuda", compile_options=FEW)
    backend.warm_up()
    yield backend
    backend.close()
