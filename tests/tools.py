"""Programs that some tests need and that pip cannot install."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(tool: str) -> str:
    """Where `tool` is; where it is not, the test is skipped, or fails if `CI_TOOLS=require` is set."""
    path = shutil.which(tool)
    if path is None:
        reason = f"{tool} is not installed (Debian: apt-get install prometheus chromium)"
        if os.environ.get("CI_TOOLS") == "require":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
