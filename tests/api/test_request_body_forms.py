"""The limits of forms and queries, on real sockets: they apply while the form is read."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI

from tests.api.answers import problem
from tests.api.double import RecognizerDouble
from tests.api.sockets import Connection, connected, head, http_client, listening
from tests.api.sounds import wav

CLIP = wav()
FORM = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + CLIP + b"\r\n"
FIELD = b'--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\n'
END = b"--x--\r\n"


async def test_a_form_at_its_limits(new_app: Callable[..., FastAPI]) -> None:
    fields = b"".join(FIELD + b"angry\r\n" for _ in range(63)) + FIELD + b"angry," * 2700 + b"angry\r\n"
    async with listening(new_app()) as port, http_client(port) as client:
        answer = await client.post("/recognize", content=FILE + fields + END, headers={"content-type": FORM})
        assert answer.json()["errors"][0]["message"] == "must be names of labels, separated by commas"  # too many names
        long_name = FILE.replace(b'"a"', b'"' + b"a" * 4000 + b'"')
        answer = await client.post("/recognize", content=long_name + END, headers={"content-type": FORM})
        assert answer.status_code == 200


PAST = {
    "one field more": FIELD + b"angry\r\n",
    "a long field": FIELD + b"x" * (16 * 1024 + 1) + b"\r\n",
    "a long header of a part": FILE.replace(b'"a"', b'"' + b"a" * 5000 + b'"'),
    "many headers of a part": FILE.replace(b"\r\n\r\n", b"\r\n" + b"A: 1\r\n" * 20 + b"\r\n", 1),
}


@pytest.mark.parametrize("part", PAST.values(), ids=PAST.keys())
async def test_a_form_past_a_limit(new_app: Callable[..., FastAPI], recognizer: RecognizerDouble, part: bytes) -> None:
    fields = b"".join(FIELD + b"angry\r\n" for _ in range(64))
    async with listening(new_app()) as port, http_client(port) as client:
        answer = await client.post("/recognize", content=fields + part + END, headers={"content-type": FORM})
        problem(answer, 400, "malformed_body")
    assert recognizer.permits == 0


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a field": (FIELD, b"x" * 100_000),
    "fields": (b"", (FIELD + b"angry\r\n") * 1000),
    "a header of a part": (b"--x\r\nContent-Disposition: form-data; name=", b"x" * 100_000),
    "headers of a part": (b"--x\r\n", b"A: 1\r\n" * 10_000),
    "what is before the form": (b"", b"x" * 100_000),
}


@pytest.mark.parametrize(("begin", "piece"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_an_endless_form_is_refused_while_it_arrives(
    new_app: Callable[..., FastAPI], begin: bytes, piece: bytes
) -> None:
    async with listening(new_app()) as port, connected(port) as connection:
        tracemalloc.start()
        sending = asyncio.create_task(_send(connection, begin, piece))
        await connection.problem(400, "malformed_body")
        await connection.closed()
        await asyncio.wait((sending,))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


async def _send(connection: Connection, begin: bytes, piece: bytes) -> None:
    with suppress(ConnectionError):
        await connection.send(head(60_000_000, media=FORM) + begin)
        for _ in range(60_000_000 // len(piece)):
            await connection.send(piece)


async def test_a_long_boundary(client: httpx.AsyncClient) -> None:
    media = f"multipart/form-data; boundary={'x' * 300}"
    problem(await client.post("/recognize", content=FILE + END, headers={"content-type": media}), 400, "malformed_body")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "us-ascii", '"utf-8"'])
async def test_usual_charsets(client: httpx.AsyncClient, charset: str) -> None:
    headers = {"content-type": f"{FORM}; charset={charset}"}
    assert (await client.post("/recognize", content=FILE + END, headers=headers)).status_code == 200


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-16", "no-such", "zlib", "é"])
async def test_slow_or_invalid_charsets_are_refused(client: httpx.AsyncClient, charset: str) -> None:
    """Decoding 64 fields of 16 KiB as Punycode would block the event loop for seconds."""
    fields = b"".join(FIELD + b"z" * 16_000 + b"\r\n" for _ in range(64))
    answer = await client.post(
        "/recognize", content=fields + END, headers=[(b"content-type", f"{FORM}; charset={charset}".encode("latin-1"))]
    )
    assert "UTF-8" in problem(answer, 400, "malformed_body")["detail"]


QUERIES = {
    "unknown": "&".join(f"gra{number}" for number in range(4000)),
    "repeated": "&".join(["labels=angry"] * 2000),
    "short": "a&" * 14_000,
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_thousands_of_query_parameters_do_not_block_the_event_loop(
    new_app: Callable[..., FastAPI], query: str
) -> None:
    async with listening(new_app()) as port, http_client(port) as client:
        answer = await client.post(f"/recognize?{query}", content=CLIP, headers={"content-type": "audio/wav"})
        document = problem(answer, 422, "invalid_options")
    assert "more than 64 parameters" in document["detail"]
    assert document["errors"] == []  # finding a suggestion for each would take a third of a second
