"""The WebUI's way in for programs: it puts MergeLab's HTTP routes into the WebUI's app.

"Reload UI" makes a new app and runs this file again, so the routes come back; jobs and
studies stay in lib_merge, which stays loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modules import script_callbacks, shared

# Now and not in the callback: only while scripts load is this folder on the path.
import lib_merge.api
from lib_merge.hosts import detect_host


def add_routes(demo: Any, app: Any) -> None:
    """Called with every new app; `demo` is None where the WebUI has no page."""
    host = detect_host()
    if host is None:
        return
    options = shared.cmd_opts
    lora_dir = getattr(options, "lora_dir", None)
    lib_merge.api.attach(
        app,
        host,
        demo=demo,
        api_auth=str(getattr(options, "api_auth", None) or ""),
        logins=page_logins(),
        origins=[str(getattr(options, "cors_allow_origins", None) or "")],
        origin_pattern=str(getattr(options, "cors_allow_origins_regex", None) or ""),
        input_dirs=[Path(lora_dir)] if lora_dir else [],
    )


def page_logins() -> Iterable[tuple[str, str]]:
    """The logins of --gradio-auth; they count without a page, too."""
    try:
        from modules import initialize_util
    except ImportError:
        return ()
    tell = getattr(initialize_util, "get_gradio_auth_creds", None)
    return () if tell is None else list(tell())


script_callbacks.on_app_started(add_routes)
