"""The Settings page: folders, memory, devices, storage; kept where the host keeps them.

Inside a WebUI these are the host's own settings, which its Settings tab shows, too.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_merge.core.user_settings import NAMES, UserSettings, text_of
from lib_merge.ui import compat, markup
from lib_merge.ui.guard import guarded
from lib_merge.ui.workspace import Workspace

SECTIONS = (
    ("Folders", ("recipes_dir", "studies_dir", "outputs_dir")),
    ("Merging", ("memory_mb", "merge_device")),
    ("AutoMBW", ("storage_url", "scorer_device", "scorer_cache")),
)
"""What stands together; every setting once."""


class SettingsPage:
    """The page.

    Args:
        workspace: Whose host keeps the settings.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._preferences = workspace.preferences
        self._preferences.apply_scorer_cache()
        stored = self._preferences.current
        self._made: dict[str, Any] = {}
        with gr.Column(elem_id="merge-set-columns"):
            for title, names in SECTIONS:
                heading = f'<h3 class="merge-heading">{markup.text(title)}</h3>'
                compat.html(heading)
                with gr.Row():
                    for name in names:
                        self._made[name] = _control(name, getattr(stored, name))
            self._build_actions()
        self.controls = [self._made[name] for name in NAMES]
        told = [self.told, *self.controls]
        compat.handle(self.save.click, self.on_save, self.controls, told)
        compat.handle(self.undo.click, self.on_undo, None, told)

    def _build_actions(self) -> None:
        with gr.Row():
            self.save = compat.make(
                gr.Button,
                "Save settings",
                variant="primary",
                elem_id="merge-set-save",
                min_width=140,
            )
            self.undo = compat.make(
                gr.Button,
                "Show what is stored",
                elem_id="merge-set-undo",
                min_width=140,
            )
        self.told = compat.html(self._state(), elem_id="merge-set-told")
        words = (
            f"Kept in {self._preferences.place}. Folders that do not begin at the root "
            f"lie in {self._workspace.host.catalog.data_dir()}, the one for merged "
            "models in the host's own. Jobs that are running keep what they began with."
        )
        compat.html(f'<div class="merge-hints">{markup.text(words)}</div>')

    # Handlers

    def on_save(self, *values: Any) -> list[Any]:
        """Check and store; nothing is stored while one value cannot be used."""
        given = dict(zip(NAMES, values, strict=True))
        fault = guarded(lambda: self._preferences.save(given))
        if fault:
            return [fault, *(gr.update() for _ in NAMES)]
        self._workspace.note_new_file()
        return [markup.success("Saved; it holds from now on."), *self._shown()]

    def on_undo(self) -> list[Any]:
        """What is stored, and what of it cannot hold."""
        return [self._state(), *self._shown()]

    def on_open(self) -> list[Any]:
        """Values for a page that was just opened, and the storage that they offer."""
        return [*self._shown(), gr.update(value=self._preferences.current.storage_url)]

    def _shown(self) -> list[Any]:
        stored: UserSettings = self._preferences.current
        return [gr.update(value=getattr(stored, name)) for name in NAMES]

    def _state(self) -> str:
        return guarded(self._preferences.check) or "<div></div>"


def _control(name: str, value: str | int) -> Any:
    text = text_of(name)
    common: dict[str, Any] = {
        "value": value,
        "label": text.label,
        "info": text.info,
        "interactive": True,
        "elem_id": f"merge-set-{name.replace('_', '-')}",
        "min_width": 260,
    }
    if isinstance(value, int):
        return compat.make(gr.Number, precision=0, **common)
    return compat.make(gr.Textbox, lines=1, max_lines=1, **common)


def build(workspace: Workspace) -> SettingsPage:
    """Build the page inside the current Blocks."""
    return SettingsPage(workspace)
