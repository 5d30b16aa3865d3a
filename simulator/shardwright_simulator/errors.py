"""The simulator's exceptions.

* `SimulatorError`
    * `ConfigError`: an option, a bot or a command line that makes no sense. Terminal: fix it and start again.
    * `ControlError`: a control request that cannot be done; carries the HTTP status to answer with.
        * `NotFoundError`: it names a bot, a load, a fault or a route that is not there.
    * `HttpError`: bytes on the port that are no HTTP request we read; carries the status too.
    * `ClientError`: a gateway message breaks a rule of Discord's; carries the close code to answer with.
"""

from __future__ import annotations

from http import HTTPStatus


class SimulatorError(Exception):
    """Base of all that the simulator raises."""


class ConfigError(SimulatorError):
    """An option, a bot or a command line that makes no sense."""


class ControlError(SimulatorError):
    """A control request that cannot be done."""

    status = HTTPStatus.BAD_REQUEST


class NotFoundError(ControlError):
    """A control request that names what is not there."""

    status = HTTPStatus.NOT_FOUND


class HttpError(SimulatorError):
    """Bytes that are no HTTP request we read."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientError(SimulatorError):
    """A gateway message that breaks a rule, with the close code Discord answers it with."""

    def __init__(self, code: int, rule: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.rule = rule
