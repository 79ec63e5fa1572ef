from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api.request_body import RAW
from service.results import SAMPLING_RATE
from tests.api.answers import fields, problem
from tests.api.conftest import serving
from tests.api.double import RecognizerDouble
from tests.api.sounds import AS_WAV, CLIP, as_wav, wav
from tests.audio_samples import encode, speech
from tests.inference.fake_backend import LABELS, WIDTH


async def ask(client: httpx.AsyncClient, content: bytes = CLIP, **options: Any) -> Any:
    """Post a raw body with options in the query and read the answer."""
    response = await client.post("/recognize", content=content, headers=AS_WAV, params=options)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_answer_for_a_clip(client: httpx.AsyncClient) -> None:
    response = await client.post("/recognize", files={"file": ("a.wav", CLIP)}, headers={"x-request-id": "abc-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    scores = answer.pop("scores")
    assert [each["label"] for each in scores] == [label.en for label in LABELS]
    assert sum(each["score"] for each in scores) == pytest.approx(1)
    best = max(scores, key=lambda each: each["score"])
    assert answer == {
        "id": "abc-1",
        "model": {
            "id": "fake",
            "revision": "1",
            "backend": "fake",
            "device": "cpu",
            "dtype": "float32",
            "demonstration": True,
        },
        "audio": {
            "duration": 0.5,
            "sampling_rate": 16_000,
            "channels": 1,
            "narrow_band": False,
            "truncated": False,
            "speech": {"start": 0.0, "end": 0.5},
        },
        "label": best["label"],
        "score": best["score"],
    }


async def test_server_timing(client: httpx.AsyncClient) -> None:
    response = await client.post("/recognize", content=CLIP, headers=AS_WAV)
    stages = [stage.split(";dur=") for stage in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["decode", "queue", "preprocess", "inference"]
    assert float(stages[0][1]) > 0
    assert [float(value) for _, value in stages[1:]] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["file", "audio"])
async def test_both_names_of_the_file_and_any_filename(client: httpx.AsyncClient, name: str) -> None:
    response = await client.post("/recognize", files={name: ('../../文件".exe', CLIP, "text/html")})
    assert response.status_code == 200


@pytest.mark.parametrize("media", [*(media.replace("*", "x-wav") for media in RAW), "AUDIO/Wav; codecs=1"])
async def test_raw_bodies(client: httpx.AsyncClient, media: str) -> None:
    response = await client.post("/recognize", content=CLIP, headers={"content-type": media})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "media",
    [
        "",
        "application/ogg",
        "application/mp4",
        "application/x-matroska",
        "application/x-download",
        "binary/octet-stream",
        "video/3gpp2",
        "video/mp2t",
        "video/ogg",
        "video/quicktime",
        "video/x-matroska",
        "video/x-ms-asf",
    ],
)
async def test_the_content_says_what_it_is(client: httpx.AsyncClient, media: str) -> None:
    opus = encode("ogg-opus", speech(seconds=0.5), SAMPLING_RATE)
    response = await client.post("/recognize", content=opus, headers={"content-type": media} if media else {})
    assert response.status_code == 200


async def test_a_request_without_a_body(client: httpx.AsyncClient) -> None:
    problem(await client.post("/recognize"), 422, "audio_empty")


@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "application/json",
        "application/problem+json",
        "application/x-ndjson",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=x",
    ],
)
async def test_other_bodies(client: httpx.AsyncClient, media: str) -> None:
    response = await client.post("/recognize", content=CLIP, headers={"content-type": media})
    detail = problem(response, 415, "unsupported_media_type")["detail"]
    assert "audio/wav" in detail
    assert media.partition(";")[0] in detail


@pytest.mark.parametrize("path", ["/recognize", "/recognize/batch"])
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "br", "zstd", "identity, GZIP", "gzip, br", "unknown"])
@pytest.mark.parametrize("form", [False, True])
async def test_compressed_bodies(client: httpx.AsyncClient, path: str, coding: str, form: bool) -> None:
    body: dict[str, Any] = {"files": {"file": ("a", CLIP)}} if form else {"content": gzip.compress(CLIP)}
    response = await client.post(path, **body, headers={"content-encoding": coding})
    assert coding in problem(response, 415, "unsupported_content_encoding")["detail"]
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["", "identity", "Identity, identity"])
async def test_bodies_that_are_not_compressed(client: httpx.AsyncClient, coding: str) -> None:
    response = await client.post("/recognize", content=CLIP, headers=AS_WAV | {"content-encoding": coding})
    assert response.status_code == 200
    assert "accept-encoding" not in response.headers


async def test_large_uploads_are_spooled_to_disk(client: httpx.AsyncClient) -> None:
    clip = wav(20, rate=48_000)
    assert len(clip) > 3 * 2**20
    assert (await ask(client, clip))["audio"] == {
        "duration": 20.0,
        "sampling_rate": 48_000,
        "channels": 1,
        "narrow_band": False,
        "truncated": False,
        "speech": {"start": 0.0, "end": 20.0},
    }
    response = await client.post("/recognize", files={"file": ("a", clip)})
    assert response.json()["audio"]["duration"] == 20.0


async def test_chunked_bodies(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for begin in range(0, len(CLIP), 1000):
            yield CLIP[begin : begin + 1000]

    response = await client.post("/recognize", content=chunks(), headers=AS_WAV)
    assert response.status_code == 200


async def test_options_may_be_fields_or_parameters(client: httpx.AsyncClient) -> None:
    answers = [
        await client.post("/recognize", files={"file": ("a", CLIP)}, data={"label_language": "zh", "labels": "sad"}),
        await client.post("/recognize", files={"file": ("a", CLIP)}, params={"label_language": "zh", "labels": "sad"}),
        await client.post(
            "/recognize", files={"file": ("a", CLIP)}, params={"label_language": "zh"}, data={"labels": "sad"}
        ),
    ]
    for answer in answers:
        assert answer.json()["scores"] == [{"label": "难过", "score": 1.0}]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"granularity": "segments"}, {"granularity": "invalid"}),
        ({"granularity": "frames"}, {"granularity": "invalid"}),
        ({"embedding": "yes"}, {"embedding": "invalid"}),
        ({"encoding": "hex"}, {"encoding": "invalid"}),
        ({"labels": "joy"}, {"labels": "unknown_label"}),
        ({"labels": "unuse_0"}, {"labels": "masked_label"}),
        ({"labels": "sad,难过"}, {"labels": "repeated_label"}),
        ({"label_language": "fr"}, {"label_language": "invalid"}),
        ({"channels": "2"}, {"channels": "channel_out_of_range"}),
        ({"channels": "both"}, {"channels": "invalid"}),
        ({"trim": "on"}, {"trim": "invalid"}),
        ({"window": "1"}, {"window": "conflict"}),
        ({"granularity": "frame", "hop": "0"}, {"hop": "invalid"}),
        ({"start": "7"}, {"start": "start_out_of_range"}),
        ({"end": "-1"}, {"end": "invalid"}),
        ({"start": "0.3", "end": "0.2"}, {"end": "conflict"}),
        ({"timeout": "0"}, {"timeout": "invalid"}),
        ({"grain": "frame", "trim": "1"}, {"grain": "unknown", "trim": "invalid"}),
    ],
)
async def test_bad_options(
    client: httpx.AsyncClient, recognizer: RecognizerDouble, options: dict[str, str], fault: dict[str, str]
) -> None:
    raw = await client.post("/recognize", content=CLIP, headers=AS_WAV, params=options)
    assert fields(problem(raw, 422, "invalid_options")) == fault
    form = await client.post("/recognize", files={"file": ("a", CLIP)}, data=options)
    assert fields(problem(form, 422, "invalid_options")) == fault
    assert recognizer.clips == []
    assert recognizer.permits == 0


async def test_conflicting_form_and_query(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/recognize", files={"file": ("a", CLIP)}, data={"trim": "true"}, params={"trim": "false"}
    )
    assert fields(problem(response, 422, "invalid_options")) == {"trim": "conflict"}


@pytest.mark.parametrize(
    ("files", "data", "fault"),
    [
        ([], {}, None),
        ([("file", ("a", CLIP)), ("audio", ("a", CLIP))], {}, {"file": "repeated"}),
        ([("file", ("a", CLIP)), ("file", ("a", CLIP))], {}, {"file": "repeated"}),
        ([("file", ("a", CLIP))] * 5, {}, {"file": "repeated"}),
        ([("files", ("a", CLIP))], {}, {"files": "unknown"}),
        ([("trim", ("a", CLIP))], {}, {"trim": "invalid"}),
        (
            [("x", ("a", CLIP))],
            {"file": "text", "audio": "text"},
            {"x": "unknown", "file": "not_a_file", "audio": "not_a_file"},
        ),
    ],
)
async def test_forms_without_exactly_one_file(
    client: httpx.AsyncClient, files: list[Any], data: dict[str, str], fault: dict[str, str] | None
) -> None:
    if fault is None:
        body = b'--x\r\nContent-Disposition: form-data; name="trim"\r\n\r\ntrue\r\n--x--\r\n'
        response = await client.post(
            "/recognize", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
        )
        fault = {"file": "missing"}
    else:
        response = await client.post("/recognize", files=files, data=data)
    assert fields(problem(response, 422, "invalid_options")) == fault


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        HEAD,
        HEAD + CLIP,
        HEAD + CLIP + b"\r\n--x",
        b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\nabc\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="trim"\r\n\r\n' + b"t" * 20_000 + b"\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="trim"\r\n\r\ntrue\r\n' * 100 + b"--x--\r\n",
    ],
)
async def test_broken_forms(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(
        "/recognize", content=body, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    problem(response, 400, "malformed_body")


async def test_a_form_without_a_boundary(client: httpx.AsyncClient) -> None:
    response = await client.post("/recognize", content=HEAD, headers={"content-type": "multipart/form-data"})
    problem(response, 400, "malformed_body")


@pytest.mark.parametrize("options", [{}, {"granularity": "frame"}, {"channels": "split"}])
async def test_a_file_that_ends_early_is_answered_for_what_is_there(
    client: httpx.AsyncClient, options: dict[str, str]
) -> None:
    audio = (await ask(client, CLIP[:-8_000], **options))["audio"]
    assert (audio["duration"], audio["truncated"]) == (0.375, True)
    assert "unread_bytes" not in audio


async def test_bytes_behind_the_audio_are_mentioned(client: httpx.AsyncClient) -> None:
    audio = (await ask(client, CLIP + b"behind" * 100))["audio"]
    assert (audio["duration"], audio["truncated"], audio["unread_bytes"]) == (0.5, False, 600)


@pytest.mark.parametrize(
    ("audio", "status", "code"),
    [
        (b"", 422, "audio_empty"),
        (b"not audio at all, but long enough to be looked at" * 10, 415, "audio_not_decodable"),
        (wav(0.01), 422, "audio_too_short"),
        (encode("m4a", speech(), 16_000)[:-4000], 422, "audio_truncated"),
        (as_wav(np.full((8000, 1), np.nan)), 422, "audio_not_finite"),
        (wav(2), 413, "audio_too_long"),
    ],
)
async def test_bad_audio(new_app: Callable[..., FastAPI], audio: bytes, status: int, code: str) -> None:
    async with serving(new_app(max_duration=1)) as client:
        problem(await client.post("/recognize", content=audio, headers=AS_WAV), status, code)
        problem(await client.post("/recognize", files={"file": ("a", audio)}), status, code)


async def test_labels_are_chosen_in_the_order_given_and_renormalised(client: httpx.AsyncClient) -> None:
    everything = {each["label"]: each["score"] for each in (await ask(client))["scores"]}
    answer = await ask(client, labels="sad,angry", label_language="native")
    assert [each["label"] for each in answer["scores"]] == ["难过/sad", "生气/angry"]
    share = everything["sad"] / (everything["sad"] + everything["angry"])
    assert answer["scores"][0]["score"] == pytest.approx(share, abs=1e-6)
    assert answer["label"] == "生气/angry"


async def test_frames(client: httpx.AsyncClient) -> None:
    answer = await ask(client, wav(1.0), granularity="frame", label_language="zh")
    frames = answer["frames"]
    assert (frames["start"], frames["hop"], frames["window"]) == (0.0, 0.02, 0.02)
    assert frames["labels"] == [label.zh for label in LABELS]
    assert np.shape(frames["scores"]) == (49, len(LABELS))
    assert np.allclose(np.sum(frames["scores"], axis=1), 1, atol=1e-6)


async def test_windows(client: httpx.AsyncClient) -> None:
    frames = (await ask(client, wav(1.0), granularity="frame", window=0.5, hop=0.1, labels="sad,happy"))["frames"]
    assert (frames["hop"], frames["window"]) == (0.1, 0.5)
    assert frames["labels"] == ["sad", "happy"]
    assert np.shape(frames["scores"]) == (6, 2)


async def test_times_are_those_of_the_file(client: httpx.AsyncClient) -> None:
    answer = await ask(client, wav(1.0), granularity="frame", start=0.3, end=0.7)
    assert answer["audio"]["duration"] == 1.0
    assert answer["audio"]["speech"] == {"start": 0.3, "end": 0.7}
    assert answer["frames"]["start"] == 0.3


async def test_utterance_embeddings(client: httpx.AsyncClient) -> None:
    numbers = (await ask(client, embedding="utterance"))["embedding"]
    encoded = (await ask(client, embedding="utterance", encoding="base64"))["embedding"]
    assert np.shape(numbers) == (WIDTH,)
    assert (encoded["dtype"], encoded["shape"]) == ("float32", [WIDTH])
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded["data"]), "<f4"), np.array(numbers, np.float32))


async def test_frame_embeddings(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    numbers = (await ask(client, embedding="frame"))["embedding"]
    encoded = (await ask(client, embedding="frame", encoding="base64"))["embedding"]
    assert np.shape(numbers) == (24, WIDTH)
    assert encoded["shape"] == [24, WIDTH]
    values = np.frombuffer(base64.b64decode(encoded["data"]), "<f4").reshape(24, WIDTH)
    assert np.array_equal(values, np.array(numbers, np.float32))
    await ask(client, embedding="utterance")
    assert [clip.frame_embeddings for clip in recognizer.clips] == [True, True, False]


async def test_the_limit_of_frame_embeddings(new_app: Callable[..., FastAPI]) -> None:
    async with serving(new_app(max_duration=1)) as client:
        await ask(client, wav(1, channels=2), embedding="frame", channels="split")
        three = wav(1, channels=3)
        await ask(client, three, embedding="utterance", channels="split")
        response = await client.post(
            "/recognize", content=three, headers=AS_WAV, params={"embedding": "frame", "channels": "split"}
        )
        problem(response, 413, "audio_too_long")


async def test_a_long_answer_is_sent_in_pieces(client: httpx.AsyncClient) -> None:
    answer = await ask(client, wav(60), granularity="frame", embedding="frame")
    assert np.shape(answer["frames"]["scores"]) == (2999, len(LABELS))
    assert np.shape(answer["embedding"]) == (2999, WIDTH)


async def test_channels(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (8000, 2))
    noise[:, 1] = 0
    stereo = as_wav(noise)
    split = await ask(client, stereo, channels="split", embedding="utterance", granularity="frame")
    assert set(split) == {"id", "model", "audio", "channels"}
    facts = {"duration": 0.5, "sampling_rate": 16_000, "channels": 2, "narrow_band": False, "truncated": False}
    assert split["audio"] == facts
    for index, channel in enumerate(split["channels"]):
        assert set(channel) == {"channel", "speech", "label", "score", "scores", "embedding", "frames"}
        assert channel["channel"] == index
        one = await ask(client, stereo, channels=index)
        assert one["scores"] == channel["scores"]
        assert one["audio"]["speech"] == channel["speech"]
    assert split["channels"][0]["speech"] is not None
    assert split["channels"][1]["speech"] is None
    recognizer.clips.clear()
    await ask(client, stereo)
    assert np.allclose(recognizer.clips[0].samples, noise[:, 0] / 2, atol=1e-7)


async def test_trim_reaches_the_backend(client: httpx.AsyncClient, recognizer: RecognizerDouble) -> None:
    await ask(client)
    await ask(client, trim="false")
    assert [clip.trim for clip in recognizer.clips] == [True, False]


async def test_silence_is_reported(client: httpx.AsyncClient) -> None:
    answer = await ask(client, wav(level=0))
    assert answer["audio"]["speech"] is None
    assert len(answer["scores"]) == len(LABELS)


async def test_metrics(client: httpx.AsyncClient, registry: CollectorRegistry) -> None:
    answer = await ask(client, wav(channels=2), channels="split")
    labels = [channel["label"] for channel in answer["channels"]]
    for label in set(labels):
        assert registry.get_sample_value("ser_predictions_total", {"label": label}) == labels.count(label)
    assert registry.get_sample_value("ser_stage_duration_seconds_count", {"stage": "decode"}) == 1
