"""One stream from its start message to its close: the order of messages, time limits, and errors.

One task reads messages and pauses when recognition falls behind, one recognises what is due, one sends; a fourth waits
for the server to drain. They are connected by the schedule and the outbox, both bounded. A failure of one task cancels
the others.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from service import errors
from service.api.pace import Pace
from service.api.problems import problem_of, reported
from service.api.request_context import RequestContext, Services
from service.api.stream.messages import MAX_TEXT, ReadyEvent, Start, parse_message
from service.api.stream.outbox import Outbox
from service.recognition.answers import model_summary
from service.recognition.concurrency import in_pool
from service.recognition.json_encoding import encode
from service.recognition.live.schedule import StreamDecoder, StreamSchedule
from service.recognition.live.stream import StreamCounts, StreamEvent, StreamRecognition
from service.results import ModelInfo

_INLINE_SAMPLES = 4096
"""Up to this many samples over all channels are decoded on the event loop: a thread would take longer."""

_PROBLEM_SECONDS = 2.0
"""Seconds for sending the problem and the close frame at the end of a failed stream."""

_NORMAL = 1000
_CLOSE_CODES: tuple[tuple[type[errors.ServiceError], int], ...] = (
    (errors.MessageTooLarge, 1009),
    (errors.InvalidRequest, 1008),
    (errors.Draining, 1012),
    (errors.Refused, 1013),
    (errors.DeadlineExceeded, 1013),
    (errors.ServiceError, 1011),
)


class Session:
    """Serves one accepted stream.

    Args:
        socket: the accepted connection.
        parts: the shared parts of the application.
        model: the loaded model.
        context: of the request that opened the stream.
        draining: set when the service drains and the stream must end.
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
        context.stream = self._counts = StreamCounts()
        self._receive_timeout: asyncio.Timeout | None = None
        self._ended_by_draining = asyncio.Event()  # set if draining came before the end message of the client

    async def run(self) -> None:
        """Serve the stream to its end and close it; errors of the stream are sent to the client, not raised."""
        try:
            await self._serve_within_limit()
            await self._close(_NORMAL)
        except WebSocketDisconnect as disconnect:
            self._context.close_code = disconnect.code
        except Exception as error:
            await self._fail(error)

    async def _serve_within_limit(self) -> None:
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
            disconnects = failures.subgroup(WebSocketDisconnect)
            raise (disconnects or failures).exceptions[0] from None
        if self._ended_by_draining.is_set():
            raise errors.Draining("The service is shutting down; another instance will take the stream.")

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
        await self._emit(ready, wait=False)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._outbox.send(self._socket))
            reading = group.create_task(self._read(start, schedule, recognition))
            watching = group.create_task(self._watch_draining(schedule))
            await recognition.run()
            self._outbox.close()
            await sending
            reading.cancel()
            watching.cancel()

    async def _emit(self, event: StreamEvent | ReadyEvent, wait: bool) -> None:
        self._parts.metrics.stream_events.labels(event["type"]).inc()
        await self._outbox.put(b"".join(encode(event)), wait=wait)

    async def _receive_start(self, deadline: float) -> Start:
        message = await self._receive(deadline)
        start = parse_message(message) if isinstance(message, str) else None
        if not isinstance(start, Start):
            raise errors.InvalidMessage("The first message must be a start message, as text.")
        return start

    async def _read(self, start: Start, schedule: StreamSchedule, recognition: StreamRecognition) -> None:
        """Read audio until the client or the service ends the stream; after that, raise if the client disconnects."""
        loop = asyncio.get_running_loop()
        decoder = StreamDecoder(start)
        idle = self._settings.stream_idle_timeout
        pace = Pace(self._settings.min_stream_speed, idle)
        deadline = loop.time() + idle
        while True:
            began = loop.time()
            message = await self._receive(min(deadline, began + pace.left))
            if message is None:
                break
            pace.waited += loop.time() - began
            if isinstance(message, str):
                if isinstance(parse_message(message), Start):
                    raise errors.InvalidMessage("The stream has started already.")
                break
            if len(message) > _INLINE_SAMPLES * start.sample_bytes:
                decoded = await in_pool(self._parts.streams.threads, None, decoder.decode, message)
            else:
                decoded = decoder.decode(message)
                await asyncio.sleep(0)  # hundreds of small messages may have arrived at once
            schedule.add(*decoded, loop.time())
            self._context.progress.audio_seconds = pace.received = schedule.seconds
            if schedule.seconds > self._settings.max_stream_duration:
                raise self._too_long()
            recognition.schedule_changed()
            await recognition.caught_up()
            if message:
                deadline = loop.time() + idle
        schedule.end(await in_pool(self._parts.streams.threads, None, decoder.finish), loop.time())
        recognition.schedule_changed()
        if not self._ended_by_draining.is_set():
            await self._receive(None)
            raise errors.InvalidMessage("Nothing may come after the end message.")

    async def _receive(self, deadline: float | None) -> str | bytes | None:
        """The next message, text or audio; None once draining has ended the stream.

        Args:
            deadline: on the event loop's clock; None for no limit.

        Raises:
            WebSocketDisconnect: if the client has disconnected.
            StreamIdle: if no message arrives until `deadline`.
            MessageTooLarge: if a text message has too many characters.
        """
        if self._ended_by_draining.is_set():
            return None
        try:
            async with asyncio.timeout_at(deadline) as self._receive_timeout:
                message = await self._socket.receive()
        except TimeoutError:
            if self._ended_by_draining.is_set():
                return None
            raise errors.StreamIdle("No audio, or too little, has arrived for too long.") from None
        finally:
            self._receive_timeout = None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text: str | None = message.get("text")
        if text is None:
            return bytes(message["bytes"])
        if len(text) > MAX_TEXT:
            raise errors.MessageTooLarge(f"A text message may have {MAX_TEXT} characters.")
        return text

    async def _watch_draining(self, schedule: StreamSchedule) -> None:
        await self._draining.wait()
        if not schedule.ended:
            self._ended_by_draining.set()
            if self._receive_timeout is not None:
                with suppress(RuntimeError):  # raised if it has just expired
                    self._receive_timeout.reschedule(asyncio.get_running_loop().time())

    def _too_long(self) -> errors.AudioTooLong:
        return errors.AudioTooLong(f"A stream may last {self._settings.max_stream_duration:g} seconds.")

    async def _fail(self, failure: Exception) -> None:
        """Send the queued messages and the problem, and close the stream."""
        error = reported(failure, self._context)
        self._context.code = error.code
        code = next(code for kind, code in _CLOSE_CODES if isinstance(error, kind))
        self._context.close_code = code
        self._parts.metrics.stream_events.labels("problem").inc()
        self._outbox.force(b"".join(encode({**problem_of(error, self._context.id), "type": "problem"})))
        self._outbox.close()
        with suppress(TimeoutError, errors.ServiceError, WebSocketDisconnect):
            async with asyncio.timeout(_PROBLEM_SECONDS):
                await self._outbox.send(self._socket)
                await self._close(code)

    async def _close(self, code: int) -> None:
        self._context.close_code = code
        with suppress(WebSocketDisconnect):
            await self._socket.close(code, self._context.code)
