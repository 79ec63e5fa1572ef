"""What becomes of answers that their client does not read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class AnswerTimeoutProtocol(HttpToolsProtocol):
    """Aborts connections whose client takes no byte of an answer for `answer_timeout` seconds.

    uvicorn would keep the rest of the answer, megabytes where frames were asked for, as long as the client keeps the
    connection; also past its own timeout for kept connections, since closing waits for what is not sent yet. A client
    that reads slowly has all the time it needs.
    """

    answer_timeout = 30.0

    _watching: asyncio.TimerHandle | None = None
    _unread = 0
    _resumed = False

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nobody left to read."""
        self.stop_watching()
        super().connection_lost(exc)

    def stop_watching(self) -> None:
        """Answers are no longer this protocol's concern."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def pause_writing(self) -> None:
        """More of an answer waits than the transport wants to hold."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Most of it has gone."""
        super().resume_writing()
        self._resumed = True

    def on_response_complete(self) -> None:
        """The last of an answer was handed to the transport, which may still hold it."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        if self._watching is None and (unread := self.transport.get_write_buffer_size()):
            self._unread, self._resumed = unread, False
            self._watching = self.loop.call_later(self.answer_timeout, self._look)

    def _look(self) -> None:
        self._watching = None
        if self._resumed or self.transport.get_write_buffer_size() < self._unread:
            self._watch()
        else:
            self.transport.abort()
