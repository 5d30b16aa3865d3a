"""The control API over HTTP, under `/control/`. JSON in, JSON out; the ledger comes as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from typing import Any

import msgspec
import orjson

from shardwright_simulator.control import Control
from shardwright_simulator.errors import ConfigError, ControlError, NotFoundError
from shardwright_simulator.faults import Fault
from shardwright_simulator.http import Request, Response, json_response
from shardwright_simulator.ledger import Entry, line
from shardwright_simulator.load import LoadSpec
from shardwright_simulator.options import BotConfig
from shardwright_simulator.records import Severity

PREFIX = "/control"
LINES_A_PIECE = 500
Route = Callable[[Request, str], Any]


class ControlRoutes:
    """Answers control requests."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "state"): lambda _, __: control.state(),
            ("POST", "reset"): lambda _, __: control.reset(),
            ("GET", "options"): lambda _, __: control.state().options,
            ("PATCH", "options"): lambda request, _: control.set_options(**_object(request)),
            ("GET", "bots"): lambda _, key: control.bot(key) if key else control.bots(),
            ("POST", "bots"): lambda request, _: control.add_bot(_body(request, BotConfig)),
            ("PATCH", "bots"): lambda request, key: control.change_bot(_key(key), **_object(request)),
            ("DELETE", "bots"): lambda _, key: control.remove_bot(_key(key)),
            ("POST", "rotate-token"): lambda _, key: {"token": control.rotate_token(_key(key))},
            ("GET", "sessions"): lambda request, _: control.sessions(bot=_bot(request)),
            ("DELETE", "sessions"): lambda _, key: control.end_session(_key(key)),
            ("GET", "connections"): lambda request, _: control.connections(bot=_bot(request)),
            ("GET", "identifies"): lambda request, _: control.identifies(**_slice(request)),
            ("GET", "resumes"): lambda request, _: control.resumes(**_slice(request)),
            ("GET", "overlaps"): lambda request, _: control.overlaps(**_slice(request)),
            ("GET", "silences"): lambda request, _: control.silences(**_slice(request)),
            ("GET", "requests"): lambda request, _: control.rest_requests(**_slice(request)),
            ("GET", "violations"): lambda request, _: control.violations(
                **_slice(request), severity=_severity(request)
            ),
            ("GET", "ledger"): lambda request, _: self._ledger(request),
            ("GET", "loads"): lambda _, key: control.load(_number(key)) if key else control.loads(),
            ("POST", "loads"): lambda request, _: control.start_load(_body(request, LoadSpec)),
            ("DELETE", "loads"): lambda _, key: control.stop_load(_number(key)) if key else control.stop_loads(),
            ("GET", "faults"): lambda _, __: control.faults(),
            ("POST", "faults"): lambda request, _: control.add_fault(_body(request, Fault)),
            ("DELETE", "faults"): lambda _, key: control.remove_fault(_number(key)) if key else control.clear_faults(),
        }

    def answer(self, request: Request) -> Response:
        """Answer a control request."""
        name, _, key = request.path.removeprefix(PREFIX).strip("/").partition("/")
        route = self._routes.get((request.method, name))
        try:
            if route is None:
                raise NotFoundError(f"no {request.method} {request.path}")
            result = route(request, key)
        except ControlError as error:
            return json_response({"error": str(error)}, error.status)
        except ConfigError as error:
            return json_response({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return result if isinstance(result, Response) else json_response(result)

    def _ledger(self, request: Request) -> Response:
        query = request.query
        after, limit = _number(query.get("after", "0")), _number(query.get("limit", "0"))
        entries = self._control.ledger(bot=_bot(request), session=query.get("session", ""), after=after, limit=limit)
        return Response(HTTPStatus.OK, content_type="application/jsonl", stream=_lines(entries))


def _lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    rest = iter(entries)
    while piece := b"".join(map(line, islice(rest, LINES_A_PIECE))):
        yield piece


def _bot(request: Request) -> str:
    return request.query.get("bot", "")


def _slice(request: Request) -> dict[str, Any]:
    return {"bot": _bot(request), "after": _number(request.query.get("after", "0"))}


def _severity(request: Request) -> Severity | None:
    name = request.query.get("severity", Severity.VIOLATION)
    if name == "all":
        return None
    try:
        return Severity(name)
    except ValueError as error:
        raise ControlError(f"severity is violation, note or all, not {name!r}") from error


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ControlError(f"a number is wanted, not {text!r}")
    return int(text)


def _key(key: str) -> str:
    if not key:
        raise NotFoundError("the path lacks an id")
    return key


def _object(request: Request) -> dict[str, Any]:
    value = _json(request)
    if not isinstance(value, dict):
        raise ControlError("the body is to be a JSON object")
    return value


def _body(request: Request, shape: Any) -> Any:
    try:
        return msgspec.convert(_json(request), shape)
    except msgspec.ValidationError as error:
        raise ControlError(str(error)) from error


def _json(request: Request) -> Any:
    try:
        return orjson.loads(request.body or b"{}")
    except ValueError as error:
        raise ControlError(f"the body is no JSON: {error}") from error
