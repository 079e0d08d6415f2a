"""The routes inside a FastAPI app: starlette's own, for every version of it."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lib_merge.api._call import Answer, Call, Endpoint, Events, File, Refusal
from lib_merge.api._faults import fault_json, problems_of, status_of
from lib_merge.api._fields import read_body, read_query
from lib_merge.api.access import Guard
from lib_merge.api.table import ENDPOINTS, PREFIX
from lib_merge.errors import MergeError

if TYPE_CHECKING:
    from lib_merge.ui.workspace import Workspace

_log = logging.getLogger(__name__)

_STARTING = threading.Lock()

LIMIT_BYTES = 16 << 20
"""Of a body: recipes and payloads are texts."""

POLL_S = 0.3
"""How often a watched thing is looked at."""

QUIET_S = 15.0
"""After so long without a change a comment keeps the connection open."""

STREAM_S = 3600.0
"""A stream ends after so long; browsers connect again by themselves."""


@dataclass(frozen=True)
class Surroundings:
    """What the routes need of the place they are mounted in.

    Attributes:
        workspace: The tab's own.
        guard: Asked before every request.
        input_dirs: Folders with models beside those of the catalog.
        is_closing: Whether the server is going to stop.
    """

    workspace: Workspace
    guard: Guard
    input_dirs: tuple[Path, ...]
    is_closing: Callable[[], bool]


def mount(app: Any, around: Surroundings) -> None:
    """Put the routes before all others of an app, in place of former ones."""
    made = [_route(endpoint, around) for endpoint in ENDPOINTS]
    rest = _guarded(around, _unknown, is_write=False)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    made += [
        Route(path, rest, methods=methods, name="mergelab_unknown")
        for path in (PREFIX, PREFIX + "/{rest:path}")
    ]
    names = {route.name for route in made}
    routes = app.router.routes
    kept = [route for route in routes if getattr(route, "name", "") not in names]
    routes[:] = [*made, *kept]


def _route(endpoint: Endpoint, around: Surroundings) -> Route:
    async def answer(request: Request) -> Response:
        values = await _values(endpoint, request)
        call = Call(
            around.workspace, dict(request.path_params), values, around.input_dirs
        )
        found = await run_in_threadpool(_run, endpoint, call)
        return _response(found, around)

    route = Route(
        PREFIX + endpoint.path,
        _guarded(around, answer, is_write=endpoint.is_write),
        methods=[endpoint.method],
        name=f"mergelab_{endpoint.name}",
    )
    if route.methods is not None and endpoint.media_type == "text/event-stream":
        # Who asks for the head alone must not wait for a stream's end.
        route.methods.discard("HEAD")
    return route


def _run(endpoint: Endpoint, call: Call) -> Answer:
    """Run a route; of two that start something the second sees what the first began."""
    with _STARTING if endpoint.status == 202 else nullcontext():
        return endpoint.run(call)


def _guarded(
    around: Surroundings,
    answer: Callable[[Request], Awaitable[Response]],
    *,
    is_write: bool,
) -> Callable[[Request], Awaitable[Response]]:
    """A route's function with logins, and every error as an answer."""

    async def guarded(request: Request) -> Response:
        try:
            await around.guard.check(request, is_write=is_write)
            return await answer(request)
        except MergeError as fault:
            headers = fault.headers if isinstance(fault, Refusal) else None
            return _fault(status_of(fault), problems_of(fault), headers)
        except Exception as fault:
            # The edge of the program: nobody above could tell the user.
            _log.exception("%s %s failed", request.method, request.url.path)
            words = f"{type(fault).__name__}: {fault} - this is unexpected; the "
            return _fault(500, (words + "traceback is in the console's log.",), None)

    return guarded


async def _unknown(request: Request) -> Response:
    path = request.url.path.rpartition(PREFIX)[2]
    methods = [endpoint.method for endpoint in ENDPOINTS if _fits(endpoint.path, path)]
    if methods:
        allowed = ", ".join(sorted(methods))
        raise Refusal(
            405,
            f"{request.method} is not for {PREFIX}{path}; use {allowed}.",
            headers={"Allow": allowed},
        )
    raise Refusal(
        404, f"There is nothing at {PREFIX}{path}; see {PREFIX}/openapi.json."
    )


def _fits(pattern: str, path: str) -> bool:
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        part.startswith("{") or part == other
        for part, other in zip(wanted, given, strict=True)
    )


def _fault(
    status: int, problems: tuple[str, ...], headers: dict[str, str] | None
) -> Response:
    return JSONResponse(
        fault_json(status, problems), status_code=status, headers=headers
    )


# Requests


async def _values(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """What the query and the body give.

    Raises:
        Refusal: No JSON, too much of it, or fields that cannot be used.
    """
    try:
        values = read_query(endpoint.query, dict(request.query_params))
        if endpoint.is_write:
            values |= read_body(endpoint.body, await _body(request))
    except ValueError as fault:
        raise Refusal(400, *map(str, fault.args)) from fault
    return values


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > LIMIT_BYTES:
            raise Refusal(
                413, f"The body is larger than {LIMIT_BYTES >> 20} MiB; send less."
            )
    if not data:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A form of another page's could be sent without asking; JSON cannot.
        raise Refusal(
            400,
            f"The body is of type '{kind:.60}'; send JSON with the header "
            "Content-Type: application/json.",
        )
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise Refusal(400, f"The body is no JSON: {fault!s:.200}.") from fault
    if not isinstance(found, dict):
        raise Refusal(400, "The body must be a JSON object, {...}.")
    return found


# Answers


def _response(answer: Answer, around: Surroundings) -> Response:
    if isinstance(answer, Events):
        return StreamingResponse(
            _stream(answer, around.is_closing),
            media_type="text/event-stream",
            # A middleware that compresses would hold events back.
            headers={"Cache-Control": "no-cache", "Content-Encoding": "identity"},
        )
    if isinstance(answer, File):
        return FileResponse(
            str(answer.path),
            media_type=answer.media_type,
            headers={"X-Content-Type-Options": "nosniff"},
        )
    return JSONResponse(_finite(answer.data), status_code=answer.status)


def _finite(data: Any) -> Any:
    """The same with null for infinity and NaN, which JSON does not know."""
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


async def _stream(events: Events, is_closing: Callable[[], bool]) -> AsyncIterator[str]:
    """An event for every change, until nothing will change any more.

    A server that is to stop waits for open connections, and "Reload UI" with it: so the
    stream ends then.
    """
    import anyio

    seen, began, spoke = "", monotonic(), monotonic()
    while True:
        look = await run_in_threadpool(events.look)
        text = json.dumps(_finite(look.data))
        if text != seen:
            seen, spoke = text, monotonic()
            yield f"event: {look.event}\ndata: {text}\n\n"
        elif monotonic() - spoke > QUIET_S:
            spoke = monotonic()
            yield ": nothing new\n\n"
        if look.is_last or is_closing() or monotonic() - began > STREAM_S:
            return
        await anyio.sleep(POLL_S)
