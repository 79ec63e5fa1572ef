"""NOTICE names what an image passes on under the GPL or LGPL."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import av
import pytest

NOTICE = Path(__file__).parents[1] / "NOTICE"


def test_every_library_in_the_wheel_of_pyav_is_named() -> None:
    bundled = Path(av.__file__).parent.with_name("av.libs")
    if not bundled.is_dir():
        pytest.skip("PyAV was built from source, or for a system whose wheels are laid out differently")
    # auditwheel adds a part of a checksum: libx264-bcc841a2.so.165
    libraries = {path.name.partition(".so")[0].rpartition("-")[0] for path in bundled.iterdir()}
    assert "libx264" in libraries
    assert libraries <= set(NOTICE.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_other_packages_with_libraries_under_the_lgpl_are_named(package: str) -> None:
    assert metadata.version(package)
    assert f"\n{package} (" in NOTICE.read_text(encoding="utf-8")
