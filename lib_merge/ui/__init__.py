"""The tab: one code base for Gradio 3.41.2, 4.40 and 6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib_merge.core.ports import Host


def build_tab(host: Host) -> Any:
    """The whole MergeLab tab.

    Args:
        host: What it merges, renders and lists checkpoints through.

    Returns:
        A `gr.Blocks`, for the WebUI's on_ui_tabs callback or the standalone app.
    """
    from lib_merge.ui.shell import build

    return build(host)
