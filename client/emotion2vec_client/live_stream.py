"""Live audio over a WebSocket: sends samples and receives scores.

    async with open_stream("http://127.0.0.1:8000", sampling_rate=8000) as stream:
        sending = asyncio.create_task(send_all(stream))  # await stream.send(samples) …, then await stream.end()
        async for event in stream:
            print(event["type"], event.get("label"))

Send and read at the same time: the server closes the connection of a client that does not read.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, NotRequired, TypeAlias, Unpack, cast

import httpx
import orjson
from typing_extensions import TypedDict
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, ProxyError

from emotion2vec_client.api_request import connection_settings
from emotion2vec_client.errors import Disconnected, TimedOut, Unreachable
from emotion2vec_client.proxies import proxy_for
from emotion2vec_client.response_parser import problem_from_document, problem_from_response
from emotion2vec_client.types import Embedding, LabelScore, ModelSummary, Segment

_CONNECT_TIMEOUT = 10.0
_MESSAGE_BYTES = 64 * 1024
"""Longer audio is sent as several messages."""


class StreamOptions(TypedDict, total=False):
    """The options of a stream, as in the start message of docs/api.md; None means absent."""

    select: Literal["mix", "split"] | int | None
    window: float | None
    hop: float | None
    trim: bool | None
    labels: Sequence[str] | None
    label_language: Literal["en", "zh", "native"] | None
    embedding: Literal["none", "utterance"] | None
    late: Literal["skip", "wait"] | None


class ReadyEvent(TypedDict):
    """The first event: the model, and the window and hop in seconds."""

    type: Literal["ready"]
    id: str
    model: ModelSummary
    window: float
    hop: float


class WindowEvent(Segment):
    """The scores of one window; the server skipped `skipped` windows before it.

    `taken_channel` is present if the mean of all channels cancels out: the loudest channel, which was taken instead.
    """

    type: Literal["window"]
    skipped: int
    taken_channel: NotRequired[int]


class UtteranceEvent(Segment):
    """The scores of one utterance, which ended with a pause; `taken_channel` as in a window."""

    type: Literal["utterance"]
    taken_channel: NotRequired[int]


class StreamOverall(TypedDict):
    """The mean over the utterances; null if there was no speech. `channel` is present if the channels were split."""

    channel: NotRequired[int]
    speech_seconds: float
    label: str | None
    score: float | None
    scores: list[LabelScore]
    embedding: NotRequired[Embedding]


class StreamResultEvent(TypedDict):
    """The last event: the scores of the whole stream, for each channel if the channels were split."""

    type: Literal["result"]
    duration: float
    taken_channel: NotRequired[int]
    speech_seconds: NotRequired[float]
    label: NotRequired[str | None]
    score: NotRequired[float | None]
    scores: NotRequired[list[LabelScore]]
    embedding: NotRequired[Embedding]
    channels: NotRequired[list[StreamOverall]]


StreamEvent: TypeAlias = WindowEvent | UtteranceEvent | StreamResultEvent


class Stream:
    """An open stream; created by `open_stream`.

    Attributes:
        ready: the first event, with the model, window and hop.
        request_id: the stream's ID in the server's log.
    """

    def __init__(self, connection: ClientConnection, ready: ReadyEvent, request_id: str, frame_bytes: int) -> None:
        self.ready = ready
        self.request_id = request_id
        self._connection = connection
        self._message_bytes = max(1, _MESSAGE_BYTES // frame_bytes) * frame_bytes

    async def send(self, samples: bytes | bytearray | memoryview) -> None:
        """Send interleaved samples; waits while the network or, with late=wait, the service is busy.

        Args:
            samples: whole samples, in the stream's encoding, for all channels.

        Raises:
            Disconnected: if the stream has ended; iterating over it raises the reason.
        """
        data = memoryview(samples).cast("B")
        with _translate_websocket_errors(self.request_id):
            for begin in range(0, len(data), self._message_bytes):
                await self._connection.send(data[begin : begin + self._message_bytes])

    async def end(self) -> None:
        """Tell the service that there is no more audio; it then sends the remaining events and the result.

        Raises:
            Disconnected: if the stream has ended; iterating over it raises the reason.
        """
        with _translate_websocket_errors(self.request_id):
            await self._connection.send('{"type":"end"}')

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """Yield the events up to the result.

        Raises:
            Problem: if the service ends the stream; docs/api.md lists the codes. `draining` is raised after the result
                of the audio received so far.
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
    """Open a stream, and close it at the end of the context.

    Args:
        url: the service's URL, such as `http://127.0.0.1:8000`.
        sampling_rate: in Hz.
        encoding: of the samples: 16-bit integers or 32-bit floats, little-endian.
        channels: number of interleaved channels.
        api_key: an API key, if the service requires one.
        request_id: the stream's ID in the server's log; generated by default.
        options: as in docs/api.md.

    Raises:
        Problem: if the service answers with an error.
        Unreachable, TimedOut, Disconnected: if there is no response.
        ValueError: if the URL or the key is malformed.
        ProxyUnusable: if the environment names a proxy that cannot be used; a ValueError, too.
    """
    settings = connection_settings(url, api_key, _CONNECT_TIMEOUT)
    request_id = request_id or uuid.uuid4().hex
    start = {"type": "start", "sampling_rate": sampling_rate, "encoding": encoding, "channels": channels}
    start |= {name: value for name, value in options.items() if value is not None}
    async with _connected(settings["base_url"], settings["headers"], request_id) as connection:
        with _translate_websocket_errors(request_id):
            await connection.send(orjson.dumps(start).decode())
        ready = cast(ReadyEvent, await _receive(connection, request_id))
        frame_bytes = channels * (2 if encoding == "s16le" else 4)
        yield Stream(connection, ready, request_id, frame_bytes)


@asynccontextmanager
async def _connected(base: httpx.URL, headers: dict[str, str], request_id: str) -> AsyncIterator[ClientConnection]:
    """An open WebSocket connection; raises as `open_stream` does."""
    address = base.copy_with(scheme={"http": "ws", "https": "wss"}[base.scheme], path=base.path.rstrip("/") + "/stream")
    other_headers = {**headers, "X-Request-ID": request_id}
    user_agent = other_headers.pop("User-Agent")
    proxy = proxy_for(base, "python_socks")
    try:
        connection = await connect(
            str(address),
            additional_headers=other_headers,
            user_agent_header=user_agent,
            proxy=proxy,
            compression=None,
            open_timeout=_CONNECT_TIMEOUT,
            ping_timeout=None,  # the server's pong may be delayed by audio that it has not read yet
        )
    except InvalidStatus as error:
        refusal = error.response
        response = httpx.Response(
            refusal.status_code, headers=list(refusal.headers.raw_items()), content=bytes(refusal.body)
        )
        raise problem_from_response(response, request_id) from error
    except TimeoutError as error:
        raise TimedOut("The server did not open the stream in time.", request_id) from error
    except ProxyError as error:
        raise Unreachable(f"No connection to the server through the proxy: {error}", request_id) from error
    except InvalidHandshake as error:
        raise Disconnected(f"The server does not speak WebSocket at this address: {error}", request_id) from error
    except OSError as error:
        raise Unreachable(f"No connection to the server: {error}", request_id) from error
    async with connection:
        yield connection


async def _receive(connection: ClientConnection, request_id: str) -> dict[str, object]:
    """The next event.

    Raises:
        Problem: if the service reports one.
        Disconnected: if the connection has ended.
    """
    with _translate_websocket_errors(request_id):
        event = orjson.loads(await connection.recv())
    if event["type"] == "problem":
        raise problem_from_document(event, request_id)
    return cast(dict[str, object], event)


@contextmanager
def _translate_websocket_errors(request_id: str) -> Iterator[None]:
    """Raise errors of websockets as `Disconnected`."""
    try:
        yield
    except (ConnectionClosed, OSError) as error:
        raise Disconnected(f"The connection ended before the result: {error}", request_id) from error
