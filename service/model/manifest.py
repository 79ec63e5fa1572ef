"""The manifest of a prepared model: its name, source, dimensions, labels, and files with checksums."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import orjson

from service.errors import CheckpointInvalid
from service.model.config import ModelConfig
from service.model.labels import check_labels, masked_labels, to_label
from service.model.typed_json import WrongTypeError, from_json
from service.results import Int8Error, ModelInfo

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
ONNX_FP32 = "model.fp32.onnx"
ONNX_INT8 = "model.int8.onnx"
CARD = "CARD.md"

SCHEMA = 3
"""Version of the format of prepared models; since 3 the INT8 graph computes the same on every processor."""

_MAX_BYTES = 256 * 1024
_MAX_CHARACTERS = 200
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_FILE_NAME = re.compile(_NAME)
_SHA256 = re.compile(r"[0-9a-f]{64}")
MODEL_ID = re.compile(rf"{_NAME}(/{_NAME})?")
"""Valid names of models: `name` or `owner/name`."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a prepared model.

    Raises:
        CheckpointInvalid: if a value is invalid.
    """

    sha256: str
    size: int

    def __post_init__(self) -> None:
        if _SHA256.fullmatch(self.sha256) is None:
            raise CheckpointInvalid("the sha256 of a file is not 64 hexadecimal digits")
        if self.size < 0:
            raise CheckpointInvalid("the size of a file is negative")

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Compute the checksum and the size of a file."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(sha256=digest, size=os.fstat(file.fileno()).st_size)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of `manifest.json`.

    Attributes:
        id: the hub id, or a name for a model from a local directory.
        source: the hub it came from, or `directory`.
        config: the encoder's dimensions.
        labels: as in the token list, in the order of the logits.
        files: by name, all in the directory of the manifest.
        tools: versions of the packages that prepared the model.
        demonstration: whether the model is for demonstration only; every answer then says so.
        int8_error: how far the INT8 graph's answers are from FP32, if there is that graph.
        created: when it was prepared, ISO 8601 in UTC.
        schema: version of this format.

    Raises:
        CheckpointInvalid: if a value is invalid.
    """

    id: str
    source: str
    config: ModelConfig
    labels: tuple[str, ...]
    files: dict[str, FileEntry]
    tools: dict[str, str]
    created: str
    demonstration: bool = False
    int8_error: Int8Error | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if MODEL_ID.fullmatch(self.id) is None:
            raise CheckpointInvalid("the id in the manifest is not the name of a model")
        for text in (self.source, self.created, *self.tools, *self.tools.values()):
            if len(text) > _MAX_CHARACTERS:
                raise CheckpointInvalid(f"a text in the manifest is longer than {_MAX_CHARACTERS} characters")
        for name in self.files:
            if _FILE_NAME.fullmatch(name) is None:
                raise CheckpointInvalid(f"the manifest names a file {name!r:.100}, which is not a plain name")
        check_labels(self.labels)
        if WEIGHTS not in self.files:
            raise CheckpointInvalid(f"the manifest names no {WEIGHTS}")
        if (ONNX_INT8 in self.files) != (self.int8_error is not None):
            raise CheckpointInvalid(f"the manifest has {ONNX_INT8} without its error, or the error without the file")

    @property
    def revision(self) -> str:
        """The first twelve hexadecimal digits of the weights' checksum."""
        return self.files[WEIGHTS].sha256[:12]

    def info(self, *, backend: str, device: str, dtype: str) -> ModelInfo:
        """Describe this model, running in a backend."""
        return ModelInfo(
            id=self.id,
            revision=self.revision,
            backend=backend,
            device=device,
            dtype=dtype,
            labels=tuple(to_label(native) for native in self.labels),
            masked=masked_labels(self.labels),
            embedding_size=self.config.embed_dim,
            demonstration=self.demonstration,
            int8_error=self.int8_error if dtype == "int8" else None,
        )

    def write(self, directory: Path) -> None:
        """Write `manifest.json` into `directory`."""
        text = orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (directory / MANIFEST).write_bytes(text)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read and check `manifest.json` in `directory`, and check that its files exist and have the stated sizes.

        Raises:
            CheckpointInvalid: if it is not a valid manifest, or a file is missing or has another size.
        """
        try:
            with (directory / MANIFEST).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise CheckpointInvalid(f"{directory / MANIFEST} cannot be read") from error
        if len(data) > _MAX_BYTES:
            raise CheckpointInvalid(f"{directory / MANIFEST} is larger than {_MAX_BYTES} bytes")
        try:
            document = orjson.loads(data)
            # First, since a manifest of another version may have other members.
            if isinstance(document, dict) and document.get("schema", SCHEMA) != SCHEMA:
                raise CheckpointInvalid(
                    f"{directory} was prepared by another version of the service; prepare the model again"
                )
            manifest = from_json(cls, document)
        except (orjson.JSONDecodeError, WrongTypeError) as error:
            raise CheckpointInvalid(f"{directory / MANIFEST} is not valid: {error}") from error
        for name, entry in manifest.files.items():
            path = directory / name
            if not path.is_file() or path.stat().st_size != entry.size:
                raise CheckpointInvalid(f"{path} is missing or is not {entry.size} bytes long; prepare the model again")
        return manifest

    def verify(self, directory: Path) -> None:
        """Read every file in `directory` and compare it with its checksum.

        Raises:
            CheckpointInvalid: if one differs; the message names it.
        """
        for name, entry in self.files.items():
            if FileEntry.of(directory / name) != entry:
                raise CheckpointInvalid(f"{directory / name} is not what was prepared; prepare the model again")
