"""The HTTP API under /mergelab/v1: what the tab does, for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib_merge.core.ports import Host


def attach(
    app: Any,
    host: Host,
    *,
    demo: Any = None,
    api_auth: str = "",
    logins: Iterable[tuple[str, str]] = (),
    origins: Sequence[str] = (),
    origin_pattern: str = "",
    input_dirs: Sequence[Path] = (),
) -> None:
    """Put the routes into an app; jobs and studies are those of the tab.

    Args:
        app: The WebUI's FastAPI app, Gradio's own or a plain one.
        host: What it merges, renders and lists checkpoints through.
        demo: The served `gr.Blocks`, or None.
        api_auth: Logins of programs, as "user:password,user:password".
        logins: Users with their passwords that the page asks for.
        origins: Other origins whose pages may use the routes.
        origin_pattern: A pattern for such origins.
        input_dirs: Folders with models (LoRAs) that the host's list does not show.
    """
    from lib_merge.api.access import Access, Guard, origins_of, read_logins
    from lib_merge.api.mount import Surroundings, mount
    from lib_merge.ui.workspace import workspace_of

    def is_closing() -> bool:
        server = getattr(demo, "server", None)
        return bool(getattr(server, "should_exit", False))

    passwords = {**dict(logins), **read_logins(api_auth)}
    access = Access(passwords, bool(api_auth), origins_of(origins), origin_pattern)
    mount(
        app,
        Surroundings(
            workspace_of(host), Guard(app, access), tuple(input_dirs), is_closing
        ),
    )
