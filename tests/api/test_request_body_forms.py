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


def part(disposition: str, content: bytes = CLIP, name: str = "file") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{disposition}\r\n\r\n'.encode() + content + b"\r\n"


NAMES = {
    "none": ("", ""),
    "an empty one": ('; filename=""', ""),
    "an extended one": ("; filename*=UTF-8''%E4%BD%A0%E5%A5%BD.wav", "你好.wav"),
    "an extended one with a language": ("; filename*=utf-8'en'a%20b.wav", "a b.wav"),
    "both": ("; filename=\"a.wav\"; filename*=UTF-8''b.wav", "a.wav"),
    "an extended one that is not UTF-8": ("; filename*=UTF-8''%ff.wav", "\ufffd.wav"),
    "an extended one of another charset": ("; filename*=punycode''a.wav", ""),
}


@pytest.mark.parametrize(("disposition", "name"), NAMES.values(), ids=NAMES.keys())
async def test_names_of_files(client: httpx.AsyncClient, disposition: str, name: str) -> None:
    headers = {"content-type": FORM}
    for seconds in (0.5, 60):
        answer = await client.post("/recognize", content=part(disposition, wav(seconds)) + END, headers=headers)
        assert answer.json()["audio"]["duration"] == seconds
    files = part(disposition, name="files") + part('; filename="z"', name="files") + part(disposition, name="files")
    answer = await client.post("/recognize/batch", content=files + END, headers=headers)
    assert [item["filename"] for item in answer.json()["items"]] == [name, "z", name]
    assert all("result" in item for item in answer.json()["items"])


async def test_a_file_without_name_in_small_pieces(new_app: Callable[..., FastAPI]) -> None:
    body = part("") + END
    async with listening(new_app()) as port, connected(port) as connection:
        await connection.send(head(len(body), media=FORM))
        for byte in body[:300]:
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)
        await connection.send(body[300:])
        assert (await connection.response())[0] == 200


async def test_as_many_files_without_name_as_with_one(client: httpx.AsyncClient) -> None:
    fields = FIELD + b"angry\r\n"
    answer = await client.post(
        "/recognize/batch", content=part("", name="files") * 64 + fields * 3 + END, headers={"content-type": FORM}
    )
    assert answer.json()["errors"][0]["field"] == "labels"  # repeated
    answer = await client.post(
        "/recognize/batch", content=part("", name="files") * 65 + END, headers={"content-type": FORM}
    )
    assert [error["kind"] for error in problem(answer, 422, "invalid_options")["errors"]] == ["repeated"]


@pytest.mark.parametrize("text", [b"", b"happy.wav", b"@happy.wav", "你好.wav".encode()])
async def test_the_name_of_a_file_in_its_place(client: httpx.AsyncClient, text: bytes) -> None:
    """As `curl -F file=happy.wav` sends it, where the user has forgotten the `@`."""
    answer = await client.post("/recognize", content=part("", text) + END, headers={"content-type": FORM})
    (error,) = problem(answer, 422, "invalid_options")["errors"]
    assert (error["field"], error["kind"]) == ("file", "not_a_file")


async def test_long_text_in_the_place_of_a_file(client: httpx.AsyncClient) -> None:
    answer = await client.post("/recognize", content=part("", b"x" * 20_000) + END, headers={"content-type": FORM})
    problem(answer, 415, "audio_not_decodable")


SLOW = {
    "many parameters": ";" * 31_000,
    "many named parameters": ";a=b" * 7000,
    "semicolons in quotes": '; boundary="' + ";" * 30_000,
}


@pytest.mark.parametrize("media", ["audio/wav", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
@pytest.mark.parametrize("parameters", SLOW.values(), ids=SLOW.keys())
async def test_a_content_type_that_is_slow_to_parse(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, path: str, media: str, parameters: str
) -> None:
    answer = await client.post(path, content=FILE + END, headers={"content-type": media + parameters})
    problem(answer, 400, "malformed_body")
    assert recognizer.permits == 0


async def test_headers_of_parts_that_are_slow_to_parse(client: httpx.AsyncClient) -> None:
    slow = part(";" * 3900, b"x", name="labels")
    answer = await client.post("/recognize", content=slow * 64 + END, headers={"content-type": FORM})
    problem(answer, 400, "malformed_body")


async def test_semicolons_in_names_of_files(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/recognize", content=part('; filename="a;b;c.wav"') + END, headers={"content-type": FORM}
    )
    assert answer.status_code == 200
