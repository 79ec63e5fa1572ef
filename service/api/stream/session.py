"""One stream from its start message to its close: what may come when, for how long, and what a failure is told as.

Three tasks work on it. One reads messages, as long as not too much is due; one answers what is due; one sends. Between
them are the agenda and the outbox, both bounded. Whichever fails ends the others.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.api.problems import problem_of, reported
from service.api.request_context import RequestContext, Services, StreamNotes
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
from service.recognition.live.schedule import Agenda, Ears
from service.recognition.live.stream import Answers
from service.results import ModelInfo

_AT_ONCE = 4096
"""Samples over all channels that are heard on the event loop; that takes less than handing them to a thread."""

_LAST_WORDS = 2.0
"""Seconds in which a client can be told why its stream ends."""

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
    """Leads one stream, whose socket was accepted.

    Args:
        socket: the connection.
        parts: the parts of the application.
        model: the model that answers.
        context: whose request it is.
        draining: set when the stream must come to its end.
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
        self._notes = context.notes.stream = StreamNotes()
        self._waiting: asyncio.Timeout | None = None
        """Of the message that is waited for at this moment."""
        self._cut_short = asyncio.Event()  # by draining, before the client has ended it

    async def run(self) -> None:
        """Lead the stream to its end and close it; raises nothing that concerns the stream."""
        try:
            await self._converse()
            await self._close(_NORMAL)
        except WebSocketDisconnect as left:
            self._notes.close_code = left.code
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
        agenda = Agenda(start)
        answers = Answers(self._parts, self._model, start, agenda, self._outbox, self._notes)
        ready: ReadyEvent = {
            "type": "ready",
            "id": self._context.id,
            "model": model_summary(self._model),
            "window": start.window,
            "hop": start.step,
        }
        self._parts.metrics.stream_events.labels("ready").inc()
        self._outbox.force(b"".join(encode(ready)))
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._outbox.send(self._socket))
            reading = group.create_task(self._read(start, agenda, answers))
            watching = group.create_task(self._watch_draining(agenda))
            await answers.run()
            self._outbox.close()
            await sending
            reading.cancel()
            watching.cancel()

    async def _receive_start(self, deadline: float) -> Start:
        message = await self._receive(deadline)
        if not isinstance(message, str):
            raise InvalidMessage("Before any audio comes a start message, as text.")
        start = parse_message(message)
        if not isinstance(start, Start):
            raise InvalidMessage("Before anything else comes a start message.")
        return start

    async def _read(self, start: Start, agenda: Agenda, answers: Answers) -> None:
        """Hear what comes until the client or the service ends it, and from then on whether the client leaves."""
        loop = asyncio.get_running_loop()
        ears = Ears(start)
        idle = self._settings.stream_idle_timeout
        deadline = loop.time() + idle
        while (message := await self._receive(deadline)) is not None:
            if isinstance(message, str):
                if isinstance(parse_message(message), Start):
                    raise InvalidMessage("The stream has started already.")
                break
            if len(message) > _AT_ONCE * start.sample_bytes:
                heard = await in_pool(self._parts.streams.pool, None, ears.hear, message)
            else:
                heard = ears.hear(message)
                await asyncio.sleep(0)  # hundreds of small messages may have come at once
            agenda.add(*heard, loop.time())
            self._context.notes.audio_seconds = agenda.seconds
            if agenda.seconds > self._settings.max_stream_duration:
                raise self._too_long()
            answers.tell()
            await answers.caught_up()
            if message:
                deadline = loop.time() + idle
        agenda.end(await in_pool(self._parts.streams.pool, None, ears.finish), loop.time())
        answers.tell()
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

    async def _watch_draining(self, agenda: Agenda) -> None:
        await self._draining.wait()
        if not agenda.ended:
            self._cut_short.set()
            if self._waiting is not None:
                with suppress(RuntimeError):  # its time is over at this very moment
                    self._waiting.reschedule(asyncio.get_running_loop().time())

    def _too_long(self) -> AudioTooLong:
        return AudioTooLong(f"A stream may last {self._settings.max_stream_duration:g} seconds.")

    async def _fail(self, failure: Exception) -> None:
        """Say why the stream ends, after all that was answered before, and close it."""
        error = reported(failure, self._context)
        self._context.notes.code = error.code
        code = next(code for kind, code in _CLOSES if isinstance(error, kind))
        self._notes.close_code = code
        self._parts.metrics.stream_events.labels("problem").inc()
        self._outbox.force(b"".join(encode({**problem_of(error, self._context.id), "type": "problem"})))
        self._outbox.close()
        with suppress(TimeoutError, ServiceError, WebSocketDisconnect):
            async with asyncio.timeout(_LAST_WORDS):
                await self._outbox.send(self._socket)
                await self._close(code)

    async def _close(self, code: int) -> None:
        self._notes.close_code = code
        with suppress(WebSocketDisconnect):
            await self._socket.close(code, self._context.notes.code)
