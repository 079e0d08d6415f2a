"""What a route is given and what it gives back, without a web framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.errors import MergeError

if TYPE_CHECKING:
    from lib_merge.api._fields import Field
    from lib_merge.ui.workspace import Workspace


class Refusal(MergeError):
    """A request that is answered with an error.

    Args:
        status: Of HTTP: 400, 401, 403, 404, 405, 409 or 413.
        problems: One sentence each.
        headers: What else the answer says.
    """

    def __init__(
        self, status: int, *problems: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__("\n".join(problems))
        self.status = status
        self.problems = problems
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Call:
    """A request, read and checked.

    Attributes:
        workspace: The jobs, the studies and the host; the tab's own.
        path: The parts of the path that have names.
        values: What the query or the body gives, by field; defaults filled in.
        input_dirs: Folders with models beside those of the catalog (LoRAs).
    """

    workspace: Workspace
    path: Mapping[str, str]
    values: Mapping[str, Any]
    input_dirs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Json:
    """An answer of data.

    Attributes:
        data: Plain JSON values.
        status: Of HTTP.
    """

    data: Any
    status: int = 200


@dataclass(frozen=True)
class File:
    """An answer that is a file.

    Attributes:
        path: The file; the route has made sure that it may be seen.
        media_type: Its kind.
    """

    path: Path
    media_type: str


@dataclass(frozen=True)
class Look:
    """What a watched thing is like at one moment.

    Attributes:
        event: Its name in the stream.
        data: Plain JSON values.
        is_last: Whether nothing will change any more.
    """

    event: str
    data: Any
    is_last: bool


@dataclass(frozen=True)
class Events:
    """An answer that goes on: server-sent events, one for every change.

    Attributes:
        look: Asked again and again, in a worker thread.
    """

    look: Callable[[], Look]


Answer = Json | File | Events


@dataclass(frozen=True)
class Endpoint:
    """One route: the only place that says what it takes and gives.

    Attributes:
        method: GET, POST or DELETE.
        path: Below the prefix, with {names}.
        name: Permanent; the operation's id.
        summary: What it does, one sentence.
        run: Does it; called in a worker thread.
        answer: The shape of what it gives; "" for files and streams.
        is_list: Whether it gives a list of them.
        query: What the query may hold.
        body: What the JSON body may hold.
        status: Of a good answer.
        media_type: Of a good answer.
        errors: The statuses of refusals beside those that every route has.
    """

    method: str
    path: str
    name: str
    summary: str
    run: Callable[[Call], Answer]
    answer: str = ""
    is_list: bool = False
    query: Sequence[Field] = ()
    body: Sequence[Field] = ()
    status: int = 200
    media_type: str = "application/json"
    errors: tuple[int, ...] = field(default=())

    @property
    def is_write(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"
