from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from service.errors import InferenceFailed, QueueFull
from tests.api.answers import check_problem, fields, problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import wav
from tests.inference.fake_backend import WIDTH
from tests.inference.running import until


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{index}.wav", content)) for index, content in enumerate(contents)]


async def ask(client: httpx.AsyncClient, *contents: bytes, **options: Any) -> Any:
    response = await client.post("/recognize/batch", files=files(*contents), data=options)
    assert response.status_code == 200, response.text
    return response.json()


async def test_each_file_has_a_result_or_a_problem_in_order(
    client: httpx.AsyncClient, recognizer: RecognizerDouble
) -> None:
    clips = [wav(0.1 + 0.1 * index, seed=index) for index in range(6)]
    contents = [*clips[:2], b"not audio", *clips[2:4], b"", *clips[4:]]
    response = await client.post("/recognize/batch", files=files(*contents), headers={"x-request-id": "batch-1"})
    assert response.status_code == 200
    assert "server-timing" in response.headers
    answer = response.json()
    assert set(answer) == {"id", "model", "items"}
    assert answer["id"] == "batch-1"
    for index, item in enumerate(answer["items"]):
        assert (item["index"], item["filename"]) == (index, f"{index}.wav")
        if index in (2, 5):
            status, code = (415, "audio_not_decodable") if index == 2 else (422, "audio_empty")
            check_problem(item["problem"], status, code)
            assert item["problem"]["request_id"] == "batch-1"
            assert "result" not in item
        else:
            alone = await client.post("/recognize", files={"file": ("a", contents[index])})
            expected = {key: value for key, value in alone.json().items() if key not in ("id", "model")}
            assert item["result"] == expected
            assert "problem" not in item
    assert recognizer.permits == 0


async def test_files_that_end_early_are_answered(client: httpx.AsyncClient) -> None:
    items = (await ask(client, wav(), wav()[:-8_000]))["items"]
    assert [item["result"]["audio"]["truncated"] for item in items] == [False, True]


async def test_options_apply_to_all_files(client: httpx.AsyncClient) -> None:
    answer = await ask(
        client, wav(), wav(channels=2), channels="split", embedding="frame", encoding="base64", granularity="frame"
    )
    assert [len(item["result"]["channels"]) for item in answer["items"]] == [1, 2]
    assert answer["items"][0]["result"]["channels"][0]["embedding"]["shape"] == [24, WIDTH]
    assert np.shape(answer["items"][0]["result"]["channels"][0]["frames"]["scores"]) == (24, 9)


async def test_one_permit_and_a_bounded_number_at_once(
    new_app: Callable[..., FastAPI], recognizer: RecognizerDouble
) -> None:
    async with serving(new_app(max_duration=10, max_queue_seconds=60, max_files=20)) as client:
        recognizer.gate.clear()
        asking = asyncio.create_task(ask(client, *[wav(0.1)] * 20))
        await until(lambda: recognizer.waiting == 3)
        await asyncio.sleep(0.05)
        recognizer.gate.set()
        assert len((await asking)["items"]) == 20
    assert len(recognizer.clips) == 20
    assert recognizer.most_waiting == 3
    assert recognizer.most_permits == 1


async def test_failures_affect_their_file_only(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.faults += [None, InferenceFailed("Failed."), RuntimeError("secret"), QueueFull("Full.")]
    answer = await ask(client, *[wav()] * 5)
    faults = [item.get("problem", {}).get("code") for item in answer["items"]]
    assert sorted(map(str, faults)) == ["None", "None", "inference_failed", "internal_error", "queue_full"]
    assert "secret" not in str(answer)
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


async def test_the_deadline_applies_to_each_file(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    recognizer.gate.clear()
    answer = await ask(client, *[wav(0.1)] * 3, timeout="0.2")
    for item in answer["items"]:
        check_problem(item["problem"], 504, "deadline_exceeded")


async def test_the_limit_of_frame_embeddings_is_per_batch(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(max_duration=1)) as client:
        answer = await ask(client, *[wav(1)] * 3, embedding="frame")
        codes = [item.get("problem", {}).get("code") for item in answer["items"]]
        assert sorted(map(str, codes)) == ["None", "None", "audio_too_long"]


async def test_all_files_may_have_problems(client: httpx.AsyncClient) -> None:
    answer = await ask(client, b"", b"x")
    assert [item["problem"]["status"] for item in answer["items"]] == [422, 415]


@pytest.mark.parametrize("count", [4, 5, 40])
async def test_too_many_files(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, count: int) -> None:
    async with serving(new_app(max_files=3)) as client:
        assert len((await ask(client, *[wav(0.1)] * 3))["items"]) == 3
        response = await client.post("/recognize/batch", files=files(*[b"x"] * count))
        assert fields(problem(response, 422, "invalid_options")) == {"files": "repeated"}
    assert recognizer.permits == 0


async def test_errors_of_the_whole_batch(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    wrong_name = await client.post("/recognize/batch", files={"file": ("a", wav())})
    assert fields(problem(wrong_name, 422, "invalid_options")) == {"file": "unknown"}
    bad_option = await client.post("/recognize/batch", files=files(wav()), data={"trim": "x"})
    assert fields(problem(bad_option, 422, "invalid_options")) == {"trim": "invalid"}
    bad_label = await client.post("/recognize/batch", files=files(wav()), data={"labels": "joy"})
    assert fields(problem(bad_label, 422, "invalid_options")) == {"labels": "unknown_label"}
    raw = await client.post("/recognize/batch", content=wav(), headers={"content-type": "audio/wav"})
    assert "audio/wav" in problem(raw, 415, "unsupported_media_type")["detail"]
    untyped = await client.post("/recognize/batch", content=wav())
    assert "without a content type" in problem(untyped, 415, "unsupported_media_type")["detail"]
    broken = await client.post(
        "/recognize/batch", content=b"--x", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    problem(broken, 400, "malformed_body")
    assert recognizer.clips == []
    assert recognizer.permits == 0


async def test_bodies_over_the_limit(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(max_body_bytes=5000)) as client:
        problem(await client.post("/recognize/batch", files=files(bytes(6000))), 413, "body_too_large")
