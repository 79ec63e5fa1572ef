"""Uploads that are spooled to a disk that cannot store them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from tests.api.answers import problem
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav

LARGE = wav(20)
FILE = ("a.wav", LARGE)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recognize", {"content": LARGE, "headers": {"content-type": "audio/wav"}}),
        ("/recognize", {"files": {"file": FILE}}),
        ("/recognize/batch", {"files": [("files", ("b.wav", b"x")), ("files", FILE)]}),
    ],
)
async def test_uploads_that_cannot_be_spooled(
    path: str,
    body: dict[str, Any],
    client: httpx.AsyncClient,
    recognizer: RecognizerDouble,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        response = await client.post(path, **body)
        document = problem(response, 503, "storage_unwritable")
        assert str(tmp_path) not in document["detail"]
        assert "retry-after" not in response.headers, "waiting does not help"
        small = await client.post("/recognize", files={"file": ("a.wav", wav())})
        assert small.status_code == 200, "what fits into memory needs no disk"
    assert (await client.post(path, **body)).status_code == 200
    assert registry.get_sample_value("ser_requests_rejected_total", {"reason": "storage_unwritable"}) == 1
    assert recognizer.permits == 0
    (record,) = (record for record in caplog.records if record.name == "service.api.request_body")
    assert "cannot be spooled" in record.getMessage()
