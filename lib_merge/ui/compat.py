"""One face for Gradio 3.41.2, 4.40 and 6: what differs between them is hidden here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lib_merge.errors import InputError

MAJOR = int(gr.__version__.split(".")[0])
"""Gradio's major version: 3 (A1111, reForge), 4 (Forge), 6 (standalone)."""

_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_OWN_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_OWN_MONO = ("ui-monospace", "Consolas", "monospace")


def make(kind: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Build a component, leaving out the options that this Gradio does not know.

    Values are kept out of the WebUI's ui-config.json: they belong to this tab alone,
    and a stored default would override a changed declaration.

    Args:
        kind: A component or layout class of gradio.
        args: Its positional arguments.
        options: Its keyword arguments, as any supported version spells them.
    """
    known = _option_names(kind)
    kept = {name: value for name, value in options.items() if name in known}
    component = kind(*args, **kept)
    component.do_not_save_to_config = True
    return component


def _option_names(kind: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(kind).parameters.values()
    return frozenset(p.name for p in parameters if p.kind not in _VARIADIC)


def html(value: str = "", **options: Any) -> Any:
    """An HTML view without the host's own prose styles and paddings."""
    options = {"apply_default_css": False, "padding": False, **options}
    return make(gr.HTML, value, **options)


def handle(
    event: Callable[..., Any],
    function: Callable[..., Any] | None,
    inputs: Any = None,
    outputs: Any = None,
    *,
    js: str | None = None,
) -> Any:
    """Bind a short handler to an event, outside the queue, shown in no API page.

    Our handlers only start, ask or stop; the work runs in threads of its own. So they
    never wait behind the host's generation queue, and Stop always gets through.

    Args:
        event: A component's event, e.g. `button.click`, or `blocks.load`.
        function: The handler, or None for JavaScript alone.
        inputs: A component, a list, or a set (the handler then gets a dict).
        outputs: A component or a list.
        js: JavaScript that runs first.
    """
    options: dict[str, Any] = {
        "fn": function,
        "inputs": inputs,
        "outputs": outputs,
        "queue": False,
        "show_progress": "hidden",
    }
    if js is not None:
        options["_js" if MAJOR < 4 else "js"] = js
    if MAJOR >= 6:
        options["api_visibility"] = "private"
    else:
        options["api_name"] = False
    return event(**options)


def standalone_blocks(*, title: str) -> Any:
    """The outermost Blocks of the standalone app, without analytics or web fonts."""
    options: dict[str, Any] = {"analytics_enabled": False, "title": title}
    if MAJOR < 6:
        options |= {"theme": _theme()}
    return gr.Blocks(**options)


def launch(
    blocks: Any, *, port: int | None, css: str, allowed_paths: Sequence[str]
) -> str:
    """Serve the standalone app on 127.0.0.1 without blocking.

    Args:
        blocks: The outermost Blocks.
        port: Where to listen; None takes the first free one from 7870 up.
        css: The style sheet's text.
        allowed_paths: Folders whose files may be shown.

    Returns:
        The address, ending in a slash.

    Raises:
        InputError: The port is taken.
    """
    options: dict[str, Any] = {
        "server_name": "127.0.0.1",
        "server_port": port,
        "prevent_thread_lock": True,
        "quiet": True,
        "share": False,
        "inbrowser": False,
        "allowed_paths": list(allowed_paths),
    }
    if MAJOR >= 6:
        # Server-side rendering would start a Node process; nothing here needs it.
        options |= {"css": css, "theme": _theme(), "ssr_mode": False}
        options |= {"footer_links": []}
    else:
        blocks.css = css
        options |= {"show_api": False}
    blocks.queue()
    try:
        _, address, _ = blocks.launch(**options)
    except OSError as fault:
        raise InputError(
            f"Port {port} on 127.0.0.1 cannot be used; choose another one with --port, "
            "or none to get the first free one."
        ) from fault
    return str(address)


def served_app(blocks: Any) -> Any:
    """The FastAPI app that `launch` serves; Gradio 3 has another one beside it."""
    return getattr(blocks, "server_app", None) or blocks.app


def _theme() -> Any:
    return gr.themes.Default(font=_OWN_FONTS, font_mono=_OWN_MONO)
