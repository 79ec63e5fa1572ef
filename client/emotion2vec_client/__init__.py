"""A client of the service for programs: `Client` waits, `AsyncClient` awaits; both do the same.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.recognize("call.wav", labels=["angry", "neutral"])

It needs httpx, orjson, tenacity and websockets, and nothing of the server. What a call sends, when it is sent again
and how its answer is read is decided in `calls`, `retries` and `answers`; only waiting and bytes are done twice, in
`blocking` and `awaiting`.
"""

from emotion2vec_client.awaiting import AsyncClient
from emotion2vec_client.blocking import Client
from emotion2vec_client.errors import CallFailed, Disconnected, Problem, TimedOut, Unreachable
from emotion2vec_client.files import File
from emotion2vec_client.retries import Retries
from emotion2vec_client.streams import Stream, StreamEvent, StreamOptions, open_stream
from emotion2vec_client.types import Answer, BatchAnswer, Event, ModelDetails, Options
from emotion2vec_client.version import __version__

__all__ = [
    "Answer",
    "AsyncClient",
    "BatchAnswer",
    "CallFailed",
    "Client",
    "Disconnected",
    "Event",
    "File",
    "ModelDetails",
    "Options",
    "Problem",
    "Retries",
    "Stream",
    "StreamEvent",
    "StreamOptions",
    "TimedOut",
    "Unreachable",
    "__version__",
    "open_stream",
]
