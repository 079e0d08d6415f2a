"""Declares MergeLab's settings to the WebUI, which shows and keeps them as its own."""

from __future__ import annotations

from modules import script_callbacks, shared

from lib_merge.hosts._settings import add_options


def declare() -> None:
    """Our section of the WebUI's settings, as on_ui_settings wants it."""
    add_options(shared)


script_callbacks.on_ui_settings(declare)
