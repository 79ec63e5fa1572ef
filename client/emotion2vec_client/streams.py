"""Live audio over a WebSocket: samples out, what is heard in them back.

    async with open_stream("http://127.0.0.1:8000", sampling_rate=8000) as stream:
        sending = asyncio.create_task(send_all(stream))  # await stream.send(samples) …, then await stream.end()
        async for event in stream:
            print(event["type"], event.get("label"))

Sending and reading go on at the same time: a client that does not read is closed.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, NotRequired, TypeAlias, cast

import httpx
import orjson
from typing_extensions import TypedDict, Unpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from emotion2vec_client.answers import problem_in, problem_of
from emotion2vec_client.calls import connection_settings
from emotion2vec_client.errors import Disconnected, TimedOut, Unreachable
from emotion2vec_client.types import Embedding, LabelScore, ModelSummary, Segment

_CONNECT_SECONDS = 10.0
_PIECE = 64 * 1024
"""Bytes of one message; what is more goes as several."""


class StreamOptions(TypedDict, total=False):
    """What may be wished for, as in the start message of docs/api.md; None is as good as absent."""

    select: Literal["mix", "split"] | int | None
    window: float | None
    hop: float | None
    trim: bool | None
    labels: Sequence[str] | None
    label_language: Literal["en", "zh", "native"] | None
    embedding: Literal["none", "utterance"] | None
    late: Literal["skip", "wait"] | None


class ReadyEvent(TypedDict):
    """The first event: the model that answers, and what was agreed on."""

    type: Literal["ready"]
    id: str
    model: ModelSummary
    window: float
    hop: float


class WindowEvent(Segment):
    """The scores of one window; `skipped` windows were left out before it."""

    type: Literal["window"]
    skipped: int


class UtteranceEvent(Segment):
    """The scores of what was said until somebody paused."""

    type: Literal["utterance"]


class StreamOverall(TypedDict):
    """The mean of the utterances; null where there was no speech. `channel` where the channels were split."""

    channel: NotRequired[int]
    speech_seconds: float
    label: str | None
    score: float | None
    scores: list[LabelScore]
    embedding: NotRequired[Embedding]


class StreamResultEvent(TypedDict):
    """The last event: the whole stream, by channel where those were split."""

    type: Literal["result"]
    duration: float
    speech_seconds: NotRequired[float]
    label: NotRequired[str | None]
    score: NotRequired[float | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Embedding]
    channels: NotRequired[list[StreamOverall]]


StreamEvent: TypeAlias = WindowEvent | UtteranceEvent | StreamResultEvent


class Stream:
    """An open stream; `open_stream` makes it.

    Attributes:
        ready: what the service said of itself before the first sample.
        request_id: as in the server's log.
    """

    def __init__(self, connection: ClientConnection, ready: ReadyEvent, request_id: str, sample_bytes: int) -> None:
        self.ready = ready
        self.request_id = request_id
        self._connection = connection
        self._piece = max(1, _PIECE // sample_bytes) * sample_bytes

    async def send(self, samples: bytes | bytearray | memoryview) -> None:
        """Send interleaved samples, any number of whole ones over all channels.

        Waits where the network or, with late=wait, the service cannot take more.

        Raises:
            Disconnected: if the stream is over; iterating over it tells why.
        """
        data = memoryview(samples).cast("B")
        with _named_failures(self.request_id):
            for begin in range(0, len(data), self._piece):
                await self._connection.send(data[begin : begin + self._piece])

    async def end(self) -> None:
        """Say that nothing more comes; the rest of the events and the result follow.

        Raises:
            Disconnected: if the stream is over; iterating over it tells why.
        """
        with _named_failures(self.request_id):
            await self._connection.send('{"type":"end"}')

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """The events up to the result.

        Raises:
            Problem: if the service ends the stream; `docs/api.md` has the codes. With `draining` it comes after the
                result of what was heard by then.
            Disconnected: if the connection ends before the result.
        """
        finished = False
        while True:
            try:
                event = await _receive(self._connection, self.request_id)
            except Disconnected:
                if finished:
                    return
                raise
            finished = event["type"] == "result"
            yield cast(StreamEvent, event)


@asynccontextmanager
async def open_stream(
    url: str,
    *,
    sampling_rate: int,
    encoding: Literal["s16le", "f32le"] = "s16le",
    channels: int = 1,
    api_key: str | None = None,
    request_id: str | None = None,
    **options: Unpack[StreamOptions],
) -> AsyncIterator[Stream]:
    """Open a stream, and close it in the end.

    Args:
        url: where the service is, such as `http://127.0.0.1:8000`.
        sampling_rate: in Hz.
        encoding: what the samples are: 16-bit integers or 32-bit floats, little-endian.
        channels: how many are interleaved.
        api_key: a key, where the service asks for one.
        request_id: to be found in the server's log; by default a new one.
        options: what is wished for.

    Raises:
        Problem: if the service refuses.
        Unreachable, TimedOut, Disconnected: if it does not answer.
        ValueError: if the URL is none, or the key cannot be one.
    """
    settings = connection_settings(url, api_key, _CONNECT_SECONDS)
    request_id = request_id or uuid.uuid4().hex
    start = {"type": "start", "sampling_rate": sampling_rate, "encoding": encoding, "channels": channels}
    start |= {name: value for name, value in options.items() if value is not None}
    async with _connected(settings["base_url"], settings["headers"], request_id) as connection:
        with _named_failures(request_id):
            await connection.send(orjson.dumps(start).decode())
        ready = cast(ReadyEvent, await _receive(connection, request_id))
        width = channels * (2 if encoding == "s16le" else 4)
        yield Stream(connection, ready, request_id, width)


@asynccontextmanager
async def _connected(base: httpx.URL, headers: dict[str, str], request_id: str) -> AsyncIterator[ClientConnection]:
    address = base.copy_with(scheme={"http": "ws", "https": "wss"}[base.scheme], path=base.path.rstrip("/") + "/stream")
    own = {**headers, "X-Request-ID": request_id}
    agent = own.pop("User-Agent")
    try:
        connection = await connect(
            str(address),
            additional_headers=own,
            user_agent_header=agent,
            compression=None,
            open_timeout=_CONNECT_SECONDS,
            ping_timeout=None,  # the answer may wait behind audio that the service has not read yet
        )
    except InvalidStatus as error:
        answer = error.response
        response = httpx.Response(
            answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body)
        )
        raise problem_of(response, request_id) from error
    except TimeoutError as error:
        raise TimedOut("The server did not open the stream in time.", request_id) from error
    except InvalidHandshake as error:
        raise Disconnected(f"The server does not speak WebSocket at this address: {error}", request_id) from error
    except OSError as error:
        raise Unreachable(f"No connection to the server: {error}", request_id) from error
    async with connection:
        yield connection


async def _receive(connection: ClientConnection, request_id: str) -> dict[str, object]:
    """The next event.

    Raises:
        Problem, Disconnected: if there is none.
    """
    with _named_failures(request_id):
        event = orjson.loads(await connection.recv())
    if event["type"] == "problem":
        raise problem_in(event, request_id)
    return cast(dict[str, object], event)


@contextmanager
def _named_failures(request_id: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionClosed, OSError) as error:
        raise Disconnected(f"The connection ended before the result: {error}", request_id) from error
