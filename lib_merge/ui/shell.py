"""The tab's frame: its pages, and what a freshly opened page asks for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.core.ports import Host
from lib_merge.ui import compat
from lib_merge.ui.tabs import (
    autombw,
    compare,
    guide,
    merge,
    models,
    rebasin,
    recipes,
    settings,
)
from lib_merge.ui.workspace import workspace_of


def build(host: Host) -> Any:
    """Build the Blocks with all pages."""
    workspace = workspace_of(host)
    with gr.Blocks(analytics_enabled=False) as blocks, _part(gr.Tabs, "pages") as tabs:
        with _part(gr.Tab, "page-merge", "Merge", id=recipes.MERGE_PAGE):
            merging = merge.build(workspace)
        with _part(gr.Tab, "page-autombw", "AutoMBW"):
            studying = autombw.build(workspace, merging)
        with _part(gr.Tab, "page-recipes", "Recipes"):
            recipes.build(workspace, merging.taker, tabs)
        with _part(gr.Tab, "page-models", "Models"):
            models.build(workspace)
        with _part(gr.Tab, "page-compare", "Compare"):
            compare.build(workspace, merging.take_pool, merging.pool_inputs)
        with _part(gr.Tab, "page-rebasin", "Re-Basin"):
            rebasin.build(workspace)
        with _part(gr.Tab, "page-settings", "Settings"):
            setting = settings.build(workspace)
        with _part(gr.Tab, "page-help", "Help"):
            guide.build(workspace)
        # A page that was loaded again shows what is stored, not what it was built with.
        shown = [*setting.controls, studying.storage]
        compat.handle(blocks.load, setting.on_open, None, shown)
    return blocks


def _part(kind: Any, name: str, *labels: str, **options: Any) -> Any:
    return compat.make(kind, *labels, elem_id=f"merge-{name}", **options)
