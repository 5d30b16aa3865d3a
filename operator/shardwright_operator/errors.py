"""The operator's exceptions.

- `OperatorError`
    - `ApiError`: the Kubernetes API answered, but not with success
        - `NotFoundError` (404), `ConflictError` (409), `GoneError` (410), `ForbiddenError` (401, 403)
        - `InvalidError` (400, 422): trying again never helps
        - `ThrottledError` (429) and `ServerError` (5xx): trying again helps
    - `ApiUnreachableError`: the Kubernetes API did not answer
    - `UnreadableError`: an object of the API server does not fit what the operator expects of its kind
    - `DiscordError`
        - `TokenRejectedError`: Discord answered 401; never asked again with the same token
        - `DiscordUnavailableError`: no answer, or one to wait for; `retry_after` in seconds where Discord said so
"""

from __future__ import annotations

from http import HTTPStatus


class OperatorError(Exception):
    """Base of all that the operator raises."""


class ApiError(OperatorError):
    """An answer of the Kubernetes API that is no success."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """The object does not exist."""


class ConflictError(ApiError):
    """The object exists already, or is not what it was when it was read."""


class GoneError(ApiError):
    """The resource version is too old: list again."""


class ForbiddenError(ApiError):
    """The operator's rights do not reach."""


class InvalidError(ApiError):
    """The request is wrong; it will be wrong next time too."""


class ThrottledError(ApiError):
    """Too many requests."""


class ServerError(ApiError):
    """The API server is in trouble."""


class ApiUnreachableError(OperatorError):
    """The Kubernetes API did not answer."""


class UnreadableError(OperatorError):
    """An object that cannot be decoded."""


class DiscordError(OperatorError):
    """Base of what Discord's HTTP API answers."""


class TokenRejectedError(DiscordError):
    """Discord answered 401: the token is wrong or was reset."""


class DiscordUnavailableError(DiscordError):
    """Discord did not answer, or asked to wait."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


_BY_STATUS: dict[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: InvalidError,
    HTTPStatus.UNAUTHORIZED: ForbiddenError,
    HTTPStatus.FORBIDDEN: ForbiddenError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.GONE: GoneError,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidError,
    HTTPStatus.TOO_MANY_REQUESTS: ThrottledError,
}


def api_error(status: int, reason: str, message: str, retry_after: float | None = None) -> ApiError:
    """Build the exception that belongs to an HTTP status."""
    kind = _BY_STATUS.get(status, ServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ApiError)
    return kind(status, reason, message, retry_after)
