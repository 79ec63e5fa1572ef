"""One stream from its start message to its close: which messages may come when, time limits, and errors.

Three tasks serve it. One reads messages, as long as not too much is due; one scores what is due; one sends. Between
them are the schedule and the outbox, both bounded. Whichever fails ends the others.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.api.problems import problem_of, reported
from service.api.request_context import RequestContext, Services
from service.api.stream.messages import MAX_TEXT, ReadyEvent, Start, parse_message
from service.api.stream.outbox import Outbox
from service.errors import (
    AudioTooLong,
    DeadlineExceeded,
    Draining,
    InvalidMessage,
    InvalidRequest,
    MessageTooLarge,
    Refused,
    ServiceError,
    StreamIdle,
)
from service.recognition.answers import model_summary
from service.recognition.concurrency import in_pool
from service.recognition.json_encoding import encode
from service.recognition.live.schedule import StreamDecoder, StreamSchedule
from service.recognition.live.stream import StreamCounts, StreamEvent, StreamRecognition
from service.results import ModelInfo

_AT_ONCE = 4096
"""Samples over all channels that are decoded on the event loop; handing them to a thread would take longer."""

_PROBLEM_SECONDS = 2.0
"""Seconds for telling a client why its stream ends."""

_NORMAL = 1000
_CLOSES: tuple[tuple[type[ServiceError], int], ...] = (
    (MessageTooLarge, 1009),
    (InvalidRequest, 1008),
    (Draining, 1012),
    (Refused, 1013),
    (DeadlineExceeded, 1013),
    (ServiceError, 1011),
)


class Session:
    """Serves one stream, whose socket was accepted.

    Args:
        socket: the connection.
        parts: the parts of the application.
        model: the model that answers.
        context: whose request it is.
        draining: set when the stream must end.
    """

    def __init__(
        self, socket: WebSocket, parts: Services, model: ModelInfo, context: RequestContext, draining: asyncio.Event
    ) -> None:
        self._socket = socket
        self._parts = parts
        self._settings = parts.settings
        self._model = model
        self._context = context
        self._draining = draining
        self._outbox = Outbox(parts.settings.stream_idle_timeout)
        self._counts = context.record.stream = StreamCounts()
        self._waiting: asyncio.Timeout | None = None  # for the next message
        self._cut_short = asyncio.Event()  # by draining, before the client has ended the stream

    async def run(self) -> None:
        """Serve the stream to its end and close it; errors of the stream are sent to the client, not raised."""
        try:
            await self._converse()
            await self._close(_NORMAL)
        except WebSocketDisconnect as left:
            self._context.record.close_code = left.code
        except Exception as error:
            await self._fail(error)

    async def _converse(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.max_stream_duration) as whole:
                start = await self._receive_start(loop.time() + self._settings.header_timeout)
                await self._serve(start)
        except TimeoutError:
            if not whole.expired():
                raise
            raise self._too_long() from None
        except BaseExceptionGroup as failures:
            gone = failures.subgroup(WebSocketDisconnect)
            raise (gone or failures).exceptions[0] from None
        if self._cut_short.is_set():
            raise Draining("The service is shutting down; another instance will take the stream.")

    async def _serve(self, start: Start) -> None:
        schedule = StreamSchedule(start)
        recognition = StreamRecognition(
            self._parts.core,
            self._parts.streams,
            start,
            schedule,
            timeout=self._settings.timeout,
            emit=self._emit,
            counts=self._counts,
        )
        ready: ReadyEvent = {
            "type": "ready",
            "id": self._context.id,
            "model": model_summary(self._model),
            "window": start.window,
            "hop": start.hop_seconds,
        }
        self._parts.metrics.stream_events.labels("ready").inc()
        self._outbox.force(b"".join(encode(ready)))
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._outbox.send(self._socket))
            reading = group.create_task(self._read(start, schedule, recognition))
            watching = group.create_task(self._watch_draining(schedule))
            await recognition.run()
            self._outbox.close()
            await sending
            reading.cancel()
            watching.cancel()

    async def _emit(self, event: StreamEvent, wait: bool) -> None:
        self._parts.metrics.stream_events.labels(event["type"]).inc()
        await self._outbox.put(b"".join(encode(event)), wait=wait)

    async def _receive_start(self, deadline: float) -> Start:
        message = await self._receive(deadline)
        if not isinstance(message, str):
            raise InvalidMessage("Before any audio comes a start message, as text.")
        start = parse_message(message)
        if not isinstance(start, Start):
            raise InvalidMessage("Before anything else comes a start message.")
        return start

    async def _read(self, start: Start, schedule: StreamSchedule, recognition: StreamRecognition) -> None:
        """Read audio until the client or the service ends the stream; then notice whether the client leaves."""
        loop = asyncio.get_running_loop()
        decoder = StreamDecoder(start)
        idle = self._settings.stream_idle_timeout
        deadline = loop.time() + idle
        while (message := await self._receive(deadline)) is not None:
            if isinstance(message, str):
                if isinstance(parse_message(message), Start):
                    raise InvalidMessage("The stream has started already.")
                break
            if len(message) > _AT_ONCE * start.sample_bytes:
                decoded = await in_pool(self._parts.streams.threads, None, decoder.decode, message)
            else:
                decoded = decoder.decode(message)
                await asyncio.sleep(0)  # hundreds of small messages may have come at once
            schedule.add(*decoded, loop.time())
            self._context.progress.audio_seconds = schedule.seconds
            if schedule.seconds > self._settings.max_stream_duration:
                raise self._too_long()
            recognition.schedule_changed()
            await recognition.caught_up()
            if message:
                deadline = loop.time() + idle
        schedule.end(await in_pool(self._parts.streams.threads, None, decoder.finish), loop.time())
        recognition.schedule_changed()
        if not self._cut_short.is_set():
            await self._receive(None)
            raise InvalidMessage("Nothing may come after the end message.")

    async def _receive(self, deadline: float | None) -> str | bytes | None:
        """The next message, text or audio; None where draining cuts the stream short.

        Raises:
            WebSocketDisconnect: if the client is gone.
            StreamIdle: if nothing comes until `deadline`.
            MessageTooLarge: if it has too many bytes.
        """
        if self._cut_short.is_set():
            return None
        try:
            async with asyncio.timeout_at(deadline) as self._waiting:
                message = await self._socket.receive()
        except TimeoutError:
            if self._cut_short.is_set():
                return None
            raise StreamIdle("No audio has come for too long.") from None
        finally:
            self._waiting = None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text: str | None = message.get("text")
        if text is None:
            return bytes(message["bytes"])
        if len(text) > MAX_TEXT:
            raise MessageTooLarge(f"A message that is no audio may have {MAX_TEXT} characters.")
        return text

    async def _watch_draining(self, schedule: StreamSchedule) -> None:
        await self._draining.wait()
        if not schedule.ended:
            self._cut_short.set()
            if self._waiting is not None:
                with suppress(RuntimeError):  # it has expired just now
                    self._waiting.reschedule(asyncio.get_running_loop().time())

    def _too_long(self) -> AudioTooLong:
        return AudioTooLong(f"A stream may last {self._settings.max_stream_duration:g} seconds.")

    async def _fail(self, failure: Exception) -> None:
        """Send the problem, after all that was answered before, and close the stream."""
        error = reported(failure, self._context)
        self._context.record.code = error.code
        code = next(code for kind, code in _CLOSES if isinstance(error, kind))
        self._context.record.close_code = code
        self._parts.metrics.stream_events.labels("problem").inc()
        self._outbox.force(b"".join(encode({**problem_of(error, self._context.id), "type": "problem"})))
        self._outbox.close()
        with suppress(TimeoutError, ServiceError, WebSocketDisconnect):
            async with asyncio.timeout(_PROBLEM_SECONDS):
                await self._outbox.send(self._socket)
                await self._close(code)

    async def _close(self, code: int) -> None:
        self._context.record.close_code = code
        with suppress(WebSocketDisconnect):
            await self._socket.close(code, self._context.record.code)
