"""Client of emotion2vec-service: `Client` blocks, `AsyncClient` runs on asyncio; both have the same methods.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.recognize("call.wav", labels=["angry", "neutral"])

The package imports httpx, orjson, tenacity, typing-extensions and websockets, and nothing of the server. Modules:
`api_request` builds requests, `uploads` reads the files to send, `retries` decides when a request is sent again,
`response_parser` reads responses, `proxies` chooses the proxy and `live_stream` sends live audio. `sync_client` is
generated from `async_client`.
"""

from emotion2vec_client.async_client import AsyncClient
from emotion2vec_client.errors import Disconnected, Problem, RequestFailed, TimedOut, Unreachable
from emotion2vec_client.live_stream import Stream, StreamEvent, StreamOptions, open_stream
from emotion2vec_client.proxies import ProxyUnusable
from emotion2vec_client.retries import Retries
from emotion2vec_client.sync_client import Client
from emotion2vec_client.types import Answer, BatchAnswer, Event, ModelDetails, Options
from emotion2vec_client.uploads import File
from emotion2vec_client.version import __version__

__all__ = [
    "Answer",
    "AsyncClient",
    "BatchAnswer",
    "Client",
    "Disconnected",
    "Event",
    "File",
    "ModelDetails",
    "Options",
    "Problem",
    "ProxyUnusable",
    "RequestFailed",
    "Retries",
    "Stream",
    "StreamEvent",
    "StreamOptions",
    "TimedOut",
    "Unreachable",
    "__version__",
    "open_stream",
]
