from __future__ import annotations

import logging
import shutil
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf, write_hub_directory
from service.errors import CheckpointInvalid, HubUnreachable, MissingExtra, ModelNotFound, SetupError
from service.model import hub, store
from service.model.config import ModelConfig
from service.model.manifest import SCHEMA, WEIGHTS, FileEntry, Manifest

CONF = model_conf(prenet_depth=1, depth=1)
CONFIG = ModelConfig.from_hub(CONF)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was tried")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def put(directory: Path, name: str = "somebody/model") -> Manifest:
    """Write the files of a prepared model that the store reads."""
    directory.mkdir(parents=True)
    (directory / WEIGHTS).write_bytes(b"weights")
    manifest = Manifest(
        id=name,
        source="directory",
        config=CONFIG,
        labels=LABELS,
        files={WEIGHTS: FileEntry.of(directory / WEIGHTS)},
        tools={},
        created="2026-11-23T12:00:00+00:00",
    )
    manifest.write(directory)
    return manifest


@pytest.mark.usefixtures("no_network")
def test_the_embedded_model_needs_neither_cache_nor_network(tmp_path: Path) -> None:
    found = store.find("tiny", cache=tmp_path / "none")
    assert found.manifest.id == "tiny"
    assert found.manifest.demonstration
    found.manifest.verify(found.directory)
    assert (found.directory / "CARD.md").is_file()
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("no_network")
def test_a_prepared_directory_is_used_where_it_is(tmp_path: Path) -> None:
    manifest = put(tmp_path / "mine")
    found = store.find(str(tmp_path / "mine"), cache=tmp_path / "cache")
    assert (found.directory, found.manifest) == (tmp_path / "mine", manifest)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("asked", ["iic/emotion2vec_plus_seed", "emotion2vec/emotion2vec_plus_seed"])
@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_in_the_cache_needs_no_network(tmp_path: Path, asked: str, offline: bool) -> None:
    manifest = put(tmp_path / "models" / "iic--emotion2vec_plus_seed", "iic/emotion2vec_plus_seed")
    assert store.find(asked, cache=tmp_path, offline=offline).manifest == manifest


@pytest.mark.usefixtures("no_network")
def test_offline_never_tries_the_network(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match=r"offline it is not fetched.*copy config\.yaml"):
        store.find("iic/emotion2vec_plus_large", cache=tmp_path, offline=True)


@pytest.mark.parametrize(
    "model", ["large", "", "a/b/c", "../up", "/no/such/directory", "iic/", "https://example.org/x"]
)
def test_a_name_that_is_neither_directory_nor_id(tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelNotFound, match=r"iic/emotion2vec_plus_large|is not a model"):
        store.find(model, cache=tmp_path, offline=True)


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ModelNotFound, match=r"neither manifest\.json nor all of config\.yaml"):
        store.find(str(tmp_path / "photos"), cache=tmp_path)


def test_a_damaged_cache_entry_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "models" / "somebody--model")
    (tmp_path / "models" / "somebody--model" / WEIGHTS).write_bytes(b"cut")
    with pytest.raises(CheckpointInvalid, match="prepare the model again"):
        store.find("somebody/model", cache=tmp_path)


def test_stored_models_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "models" / "a--b", "a/b")
    put(tmp_path / "models" / ".a--b-unfinished", "a/b")
    put(tmp_path / "models" / "broken", "x/y")
    (tmp_path / "models" / "broken" / WEIGHTS).unlink()
    assert [model.manifest.id for model in store.stored_models(tmp_path)] == ["tiny", "a/b"]
    assert "broken" in caplog.text


def test_preparing_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.yaml", "tokens.txt", "model.pt"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "service.model.prepare", raising=False)
    monkeypatch.delitem(sys.modules, "service.model.checkpoint", raising=False)
    with pytest.raises(MissingExtra, match=r"'\.\[torch\]'"):
        store.find(str(tmp_path), cache=tmp_path / "cache")


@pytest.mark.torch
class TestPreparing:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        pytest.importorskip("torch")
        write_hub_directory(tmp_path / "My model!", CONF, make_weights(CONFIG, len(LABELS)))
        return tmp_path / "My model!"

    @pytest.mark.usefixtures("no_network")
    def test_a_hub_directory_is_prepared_once(
        self, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from service.model import prepare as module

        cache = tmp_path / "cache"
        first = store.find(str(checkpoint), cache=cache, offline=True)
        assert first.manifest.id == "My-model"
        assert first.directory.parent == cache / "models"
        monkeypatch.setattr(module, "prepare", None)
        assert store.find(str(checkpoint), cache=cache, offline=True) == first

    def test_other_content_is_another_entry(self, tmp_path: Path, checkpoint: Path) -> None:
        first = store.find(str(checkpoint), cache=tmp_path / "cache")
        write_hub_directory(checkpoint, CONF, make_weights(CONFIG, len(LABELS), seed=1))
        second = store.find(str(checkpoint), cache=tmp_path / "cache")
        assert second.directory != first.directory
        assert second.manifest.revision != first.manifest.revision

    def test_another_format_version_is_another_entry(
        self, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store.find(str(checkpoint), cache=tmp_path / "cache")
        monkeypatch.setattr("service.model.store.SCHEMA", SCHEMA + 1)
        second = store.find(str(checkpoint), cache=tmp_path / "cache")
        assert second.directory != first.directory
        assert second.manifest.revision == first.manifest.revision

    def test_pulling_downloads_prepares_and_removes_the_download(
        self, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(model: str, directory: Path, *, hub: str | None) -> str:
            shutil.copytree(checkpoint, directory)
            return f"{hub}:{model}"

        monkeypatch.setattr(hub, "fetch", fetch)
        cache = tmp_path / "cache"
        pulled = store.pull("emotion2vec/emotion2vec_plus_seed", cache=cache, source="huggingface")
        assert pulled.manifest.id == "iic/emotion2vec_plus_seed"
        assert pulled.manifest.source == "huggingface:emotion2vec/emotion2vec_plus_seed"
        assert store.find("iic/emotion2vec_plus_seed", cache=cache, offline=True) == pulled
        assert list((cache / "downloads").iterdir()) == []

    def test_a_download_that_cannot_be_prepared_is_kept_for_resuming(
        self, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(model: str, directory: Path, *, hub: str | None) -> str:
            shutil.copytree(checkpoint, directory)
            (directory / "tokens.txt").write_text("")
            return "modelscope:x"

        monkeypatch.setattr(hub, "fetch", fetch)
        with pytest.raises(CheckpointInvalid):
            store.find("somebody/model", cache=tmp_path / "cache")
        assert (tmp_path / "cache" / "downloads" / "somebody--model" / "model.pt").is_file()

    @pytest.mark.parametrize("source", ["hub", "directory"])
    def test_two_servers_that_start_together_prepare_a_model_once(
        self,
        tmp_path: Path,
        checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        source: str,
    ) -> None:
        from service.model import prepare as module

        calls: list[str] = []
        waiting = threading.Event()

        def fetch(model: str, directory: Path, *, hub: str | None) -> str:
            calls.append(f"fetch {model} from {hub}")
            shutil.copytree(checkpoint, directory)
            return "modelscope:x"

        def prepare(*args: Any, **options: Any) -> Manifest:
            calls.append("prepare")
            assert waiting.wait(10)  # until the other one waits
            return original(*args, **options)

        class Waiting(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "waiting for it" in record.getMessage():
                    waiting.set()

        original = module.prepare
        monkeypatch.setattr(hub, "fetch", fetch)
        monkeypatch.setattr(module, "prepare", prepare)
        caplog.set_level(logging.INFO)
        handler = Waiting()
        store.logger.addHandler(handler)
        model = "somebody/model" if source == "hub" else str(checkpoint)
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(store.find, model, cache=tmp_path / "cache") for _ in range(2)]
            first, second = [each.result(30) for each in both]
        store.logger.removeHandler(handler)
        assert first == second
        assert calls.count("prepare") == 1
        assert len(calls) == (2 if source == "hub" else 1)

    def test_a_cache_that_cannot_be_written_is_an_error(self, tmp_path: Path, checkpoint: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SetupError, match="cannot be written: Not a directory"):
            store.find(str(checkpoint), cache=tmp_path / "file")

    def test_only_hub_ids_are_pulled(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match="not a hub's id"):
            store.pull("tiny", cache=tmp_path)
