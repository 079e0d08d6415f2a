"""The WebUI's way in: it picks the host and hands its tab over to lib_merge.

The WebUI runs this file again on every "Reload UI"; lib_merge stays loaded, and with it
the jobs that go on meanwhile. So nothing lives here but the callback.
"""

from __future__ import annotations

import logging
from typing import Any

from modules import script_callbacks

# Now and not in the callback: only while scripts load is this folder on the path.
import lib_merge.ui
from lib_merge.hosts import detect_host

_log = logging.getLogger("lib_merge")


def make_tab() -> list[tuple[Any, str, str]]:
    """The tab's blocks, its title and its id, as on_ui_tabs wants them."""
    host = detect_host()
    if host is None:
        _log.error(
            "MergeLab knows A1111, Forge, reForge and their near relatives, and this "
            "WebUI is none of them; use the standalone app (python3 install.py app)."
        )
        return []
    return [(lib_merge.ui.build_tab(host), "MergeLab", "merge-lab")]


script_callbacks.on_ui_tabs(make_tab)
