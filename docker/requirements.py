"""Print the requirements of the service and its client, one per line: the dependencies, or those of one extra.

The Dockerfile installs them before it copies the code, so that a change of code does not install them again. The client
itself is left out: the Dockerfile builds it from this repository.
"""

import sys
import tomllib
from pathlib import Path


def requirements(extra: str | None = None) -> list[str]:
    """The requirements in `pyproject.toml` and `client/pyproject.toml` of the current directory."""
    service, client = (
        tomllib.loads(Path(folder, "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for folder in (".", "client")
    )
    if extra:
        named: list[str] = service["optional-dependencies"][extra]
        return named
    named = [each for each in service["dependencies"] if not each.startswith(client["name"])]
    return sorted({*named, *client["dependencies"]})


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
