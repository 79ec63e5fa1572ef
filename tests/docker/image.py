"""Runs the steps of the Dockerfile in directories and virtual environments, without a container engine.

Each `FROM` with an image becomes a directory (the working directory of the image) and a clean virtual environment (its
Python). `COPY` and the `RUN` steps that call python or pip are run there; other steps change the system of the image
and are only listed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dockerfile

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "Dockerfile"

_PYTHON_STEP = re.compile(r"(pip|python) ")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its `--flags` and its arguments, as the parser splits them."""

    name: str
    flags: tuple[str, ...]
    value: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """The instructions from one `FROM` to the next; `parent` is the stage or image that it names."""

    name: str
    parent: str
    instructions: tuple[Instruction, ...]


def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile by name, in the order of the file."""
    found: dict[str, Stage] = {}
    head: tuple[str, str] | None = None
    body: list[Instruction] = []
    for command in dockerfile.parse_file(str(DOCKERFILE)):
        if command.cmd == "FROM":
            if head is not None:
                found[head[0]] = Stage(*head, tuple(body))
            parent, _, name = command.value
            head, body = (name, parent), []
        elif head is not None:
            body.append(Instruction(command.cmd, tuple(command.flags), tuple(command.value)))
    assert head is not None
    found[head[0]] = Stage(*head, tuple(body))
    return found


def chain(target: str) -> list[Instruction]:
    """All instructions that `target` consists of, those of its parent stages first."""
    known = stages()
    instructions: list[Instruction] = []
    name = target
    while name in known:
        instructions = [*known[name].instructions, *instructions]
        name = known[name].parent
    return instructions


def environment(target: str) -> dict[str, str]:
    """The variables that the `ENV` instructions of an image set."""
    variables: dict[str, str] = {}
    for instruction in chain(target):
        if instruction.name == "ENV":
            variables |= dict(zip(instruction.value[::2], instruction.value[1::2], strict=True))
    return variables


def last(target: str, name: str) -> tuple[str, ...]:
    """The arguments of the last instruction of this name."""
    return [instruction.value for instruction in chain(target) if instruction.name == name][-1]


@dataclass
class Image:
    """A built image.

    Attributes:
        directory: replaces its working directory.
        python: the directory of its virtual environment.
        workdir: the working directory in the Dockerfile.
        left_out: steps that were not run, because they change the system of the image.
    """

    directory: Path
    python: Path
    workdir: str = "/"
    left_out: list[str] = field(default_factory=list)

    def local(self, text: str) -> str:
        """`text` with paths under the working directory replaced by local ones."""
        return re.sub(rf"(?<![\w./]){re.escape(self.workdir)}(?=/|$)", str(self.directory), text)

    def path(self, name: str) -> Path:
        """The local path of a path in the image."""
        return self.directory / self.local(name)


def build(target: str, scratch: Path) -> Image:
    """Build `target`, and the stages that it mounts, in `scratch`."""
    image = Image(scratch / target / "app", scratch / target / "python")
    image.directory.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", str(image.python)], check=True)
    variables: dict[str, str] = {}
    for instruction in chain(target):
        flags = dict(_flag(flag) for flag in instruction.flags)
        if instruction.name == "WORKDIR":
            image.workdir = instruction.value[0]
        elif instruction.name == "ENV":
            variables |= dict(zip(instruction.value[::2], instruction.value[1::2], strict=True))
        elif instruction.name == "COPY":
            assert not flags, "stages are mounted, not copied from"
            _copy(instruction.value, image)
        elif instruction.name == "RUN":
            (command,) = instruction.value
            if _PYTHON_STEP.match(command):
                with _mounted(flags.get("mount"), image, scratch):
                    _run(command, image, variables)
            else:
                image.left_out.append(command)
    return image


def _flag(flag: str) -> tuple[str, str]:
    name, _, value = flag.removeprefix("--").partition("=")
    return name, value


def _copy(value: tuple[str, ...], image: Image) -> None:
    *sources, target = value
    if target.endswith("/"):
        image.path(target).mkdir(exist_ok=True)
    for source in sources:
        if (ROOT / source).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, image.path(target), ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, image.path(target))


@contextmanager
def _mounted(mount: str | None, image: Image, scratch: Path) -> Iterator[None]:
    """A directory of another stage, mounted during one step."""
    if mount is None:
        yield
        return
    options = dict(option.split("=") for option in mount.split(","))
    assert options["type"] == "bind"
    source = build(options["from"], scratch).path(options["source"])
    target = image.path(options["target"])
    shutil.copytree(source, target)
    yield
    shutil.rmtree(target)


def _run(command: str, image: Image, variables: dict[str, str]) -> None:
    # Keep pip's own variables, which may name a package index, and drop the rest of the environment.
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in ("HOME", "TMPDIR")}
    subprocess.run(
        ["/bin/sh", "-c", image.local(command)],
        cwd=image.directory,
        env={**kept, **variables, "PATH": f"{image.python / 'bin'}:/usr/bin:/bin"},
        check=True,
        timeout=1800,
    )
