"""A client of the service for programs: `Client` waits, `AsyncClient` awaits; both do the same.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.recognize("call.wav", labels=["angry", "neutral"])

It needs httpx, tenacity and orjson, and nothing of the server. What a call sends, when it is sent again and how its
answer is read is decided in `calls`, `retries` and `answers`; only waiting and bytes are done twice, in `blocking` and
`awaiting`.
"""

from service.client.awaiting import AsyncClient
from service.client.blocking import Client
from service.client.errors import CallFailed, Disconnected, Problem, TimedOut, Unreachable
from service.client.files import File
from service.client.retries import Retries
from service.client.streams import Stream, StreamEvent, StreamOptions, open_stream
from service.client.types import Answer, BatchAnswer, Event, ModelDetails, Options

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
    "open_stream",
]
