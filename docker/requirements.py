"""Print what pyproject.toml asks for, one requirement a line: the dependencies, or those of the extra that is named.

The Dockerfile installs them in layers of their own, before the code is there.
"""

import sys
import tomllib
from pathlib import Path


def requirements(extra: str | None = None) -> list[str]:
    """The requirements in the `pyproject.toml` of the current directory."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    named: list[str] = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return named


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
