"""The tab's frame: its pages, and what a freshly opened page asks for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.core.ports import Host
from lib_merge.ui import compat
from lib_merge.ui.tabs import autombw, merge
from lib_merge.ui.workspace import workspace_of


def build(host: Host) -> Any:
    """Build the Blocks with a page for merging and one for AutoMBW."""
    workspace = workspace_of(host)
    with gr.Blocks(analytics_enabled=False) as blocks:
        with compat.make(gr.Tabs, elem_id="merge-pages"):
            with compat.make(gr.Tab, "Merge", elem_id="merge-page-merge"):
                merge.build(workspace)
            with compat.make(gr.Tab, "AutoMBW", elem_id="merge-page-autombw"):
                autombw.build(workspace)
    return blocks
