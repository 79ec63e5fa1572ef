"""The exceptions of the project. Each has a stable `code` and a text that is safe to show to a client.

`service.api.problems` assigns the HTTP statuses; a `SetupError` (startup and command line) is never an HTTP answer. The
OpenAPI document shows the first line of the docstrings as example details.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid option: its name, the reason, and a machine-readable kind."""

    field: str
    message: str
    kind: str


class ServiceError(Exception):
    """The root. `detail` is written for the client: no paths, no library messages, no secrets."""

    code = "internal_error"
    title = "The service failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(ServiceError):
    """The client must change the request."""

    code = "invalid_request"
    title = "The request is not valid"


class MalformedRequest(InvalidRequest):
    """The bytes received are not an HTTP request."""

    code = "malformed_request"
    title = "The request could not be read"


class HeadersTooLarge(InvalidRequest):
    """The path, the query and the headers have more bytes, or there are more headers, than the service takes."""

    code = "headers_too_large"
    title = "The headers are too large"


class MalformedBody(InvalidRequest):
    """The body is not what its content type says."""

    code = "malformed_body"
    title = "The body could not be read"


class UnsupportedMediaType(InvalidRequest):
    """The body's content type is that of text or of another form, or not multipart/form-data where that is needed."""

    code = "unsupported_media_type"
    title = "The content type is not supported"


class UnsupportedContentEncoding(InvalidRequest):
    """The body is compressed: it has a Content-Encoding other than identity."""

    code = "unsupported_content_encoding"
    title = "The content encoding is not supported"


class InvalidOptions(InvalidRequest):
    """An option is unknown or has a bad value; `errors` names each one."""

    code = "invalid_options"
    title = "An option is not valid"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than the service takes."""

    code = "body_too_large"
    title = "The body is too large"


class UploadTimeout(InvalidRequest):
    """The client stopped sending its body."""

    code = "upload_timeout"
    title = "The upload took too long"


class InvalidMessage(InvalidRequest):
    """A message of a stream is not allowed at this point, or does not match the start message."""

    code = "invalid_message"
    title = "The message is not valid"


class MessageTooLarge(InvalidRequest):
    """A message of a stream has more bytes than the service takes."""

    code = "message_too_large"
    title = "The message is too large"


class StreamIdle(InvalidRequest):
    """A stream has received nothing for too long."""

    code = "stream_idle"
    title = "The stream has stopped"


class SlowConsumer(InvalidRequest):
    """The client of a stream does not read what it is sent."""

    code = "slow_consumer"
    title = "The answers are not read"


class AudioError(InvalidRequest):
    """The audio itself is not usable."""

    code = "invalid_audio"
    title = "The audio is not usable"


class NotDecodable(AudioError):
    """No decoder recognises the bytes as audio."""

    code = "audio_not_decodable"
    title = "The audio could not be decoded"


class AudioEmpty(AudioError):
    """There are no bytes, or no samples in them."""

    code = "audio_empty"
    title = "The audio is empty"


class AudioTooShort(AudioError):
    """Fewer samples than one model frame needs (25 ms)."""

    code = "audio_too_short"
    title = "The audio is too short"


class AudioTruncated(AudioError):
    """The audio is damaged, or the file ends before anything that can be decoded."""

    code = "audio_truncated"
    title = "The audio is damaged or cut off"


class AudioNotFinite(AudioError):
    """Samples are NaN or infinite."""

    code = "audio_not_finite"
    title = "The audio has samples that are not numbers"


class AudioTooLong(AudioError):
    """More seconds than the service takes."""

    code = "audio_too_long"
    title = "The audio is too long"


class Unauthorized(ServiceError):
    """The caller did not send a valid API key."""

    code = "unauthorized"
    title = "An API key is needed"


class KeyMissing(Unauthorized):
    """The request carries no API key, and needs one."""

    code = "key_missing"
    title = "The API key is missing"


class KeyInvalid(Unauthorized):
    """The request carries an API key that is not one of the service's."""

    code = "key_invalid"
    title = "The API key is not valid"


class OriginForbidden(ServiceError):
    """A web page of an origin that is not allowed opens a stream."""

    code = "origin_forbidden"
    title = "Pages of this origin may not connect"


class HostForbidden(ServiceError):
    """The request is for a host that is not one of the service's names."""

    code = "host_forbidden"
    title = "The service is not reached under this name"


class Refused(ServiceError):
    """The request is valid but cannot be accepted now; `retry_after` is in seconds."""

    code = "refused"
    title = "The request cannot be taken now"

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class QueueFull(Refused):
    """Accepting more would only make everybody wait longer."""

    code = "queue_full"
    title = "Too many requests are waiting"


class RateLimited(Refused):
    """This caller has asked more often than it may; others are not concerned."""

    code = "rate_limited"
    title = "Too many requests from this caller"


class CallerLimit(Refused):
    """This caller has as many requests or streams at a time as it may; others are not concerned."""

    code = "caller_limit"
    title = "Too many requests of this caller at a time"


class TooManyStreams(Refused):
    """The limit of open streams is reached."""

    code = "too_many_streams"
    title = "Too many streams are open"


class Unavailable(Refused):
    """The service can answer no request at present."""

    code = "unavailable"
    title = "The service is not available"


class ModelLoading(Unavailable):
    """The model is not loaded and warm yet."""

    code = "model_loading"
    title = "The model is loading"


class Draining(Unavailable):
    """The service is shutting down and finishes what it has accepted."""

    code = "draining"
    title = "The service is shutting down"


class StorageFull(Unavailable):
    """The disk has no room for the upload."""

    code = "storage_full"
    title = "There is no room for the upload"


class DecoderUnavailable(Unavailable):
    """The process that decodes the file was killed or has stopped, and so was the one that tried it again."""

    code = "decoder_unavailable"
    title = "The decoder is not available"


class StorageUnwritable(ServiceError):
    """The directory for temporary files cannot be written, which waiting does not change."""

    code = "storage_unwritable"
    title = "Uploads cannot be stored"


class WorkerDead(Unavailable):
    """The thread that holds the model has died; it is being restarted."""

    code = "worker_dead"
    title = "The inference worker is down"


class DeadlineExceeded(ServiceError):
    """The answer would come too late."""

    code = "deadline_exceeded"
    title = "The deadline has passed"


class InferenceFailed(ServiceError):
    """The model failed on this clip; other requests are not concerned."""

    code = "inference_failed"
    title = "The model failed on this audio"


class BackendBroken(InferenceFailed):
    """The backend cannot run any more and must be loaded again.

    `Backend.run` may raise it. The worker then ends, and its batch is retried once with a new backend.
    """


class SetupError(ServiceError):
    """The installation, the settings or the command line is wrong; the text says how to correct it."""

    code = "setup_error"
    title = "The service cannot start"


class ModelNotFound(SetupError):
    """The name is neither an embedded model, nor a local directory, nor a known hub id."""

    code = "model_not_found"


class HubUnreachable(SetupError):
    """The model is not in the cache, and the hub is unreachable or `offline` is set."""

    code = "hub_unreachable"


class CheckpointInvalid(SetupError):
    """A configuration or checkpoint is malformed, unsupported, or lacks weights."""

    code = "checkpoint_invalid"


class MissingExtra(SetupError):
    """A required optional dependency is not installed."""

    code = "missing_extra"


class SettingsInvalid(SetupError):
    """A setting is unknown or has a bad value."""

    code = "settings_invalid"
