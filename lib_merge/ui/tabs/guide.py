"""The Help page: a self-check, the methods, and the architectures' blocks drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.core.method import MergeMethod
from lib_merge.errors import MergeError
from lib_merge.methods import methods
from lib_merge.ui import compat, markup
from lib_merge.ui.guard import guarded, problems_of
from lib_merge.ui.selfcheck import as_html, look_at
from lib_merge.ui.workspace import Workspace

FIRST = "sd1"
"""The architecture that is drawn first."""


class HelpPage:
    """The page.

    Args:
        workspace: Whose host is checked, and whose data folder pictures go to.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._data = workspace.host.catalog.data_dir
        self._ids = {label: arch_id for arch_id, label in _drawable()}
        first = next(label for label, arch_id in self._ids.items() if arch_id == FIRST)
        with gr.Row(elem_id="merge-help-tools"):
            self.arch = _control(
                gr.Dropdown,
                list(self._ids),
                value=first,
                label="Blocks of",
                elem_id="merge-help-arch",
            )
            self.save = compat.make(
                gr.Button, "Save as SVG and PNG", elem_id="merge-help-save"
            )
        self.told = compat.html("", elem_id="merge-help-told")
        self.view = compat.html(self._drawn(first), elem_id="merge-help-view")
        with compat.make(
            gr.Accordion, "Merge methods", open=False, elem_id="merge-help-fold"
        ):
            self.filter = _control(
                gr.Textbox,
                label="Show methods that have",
                placeholder="a word of the name, the formula or the paper",
                lines=1,
                elem_id="merge-help-filter",
            )
            self.table = compat.html(methods_table(""), elem_id="merge-help-methods")
        self._build_check()
        compat.handle(self.arch.change, self.on_arch, self.arch, [self.view, self.told])
        compat.handle(self.save.click, self.on_save, self.arch, self.told)
        compat.handle(self.filter.change, methods_table, self.filter, self.table)

    def _build_check(self) -> None:
        with compat.make(
            gr.Accordion, "Self-check", open=False, elem_id="merge-help-check-fold"
        ):
            check = compat.make(
                gr.Button, "Check this WebUI", elem_id="merge-help-check"
            )
            self.found = compat.html("", elem_id="merge-help-found")
        compat.handle(check.click, self.on_check, None, self.found)

    def on_check(self) -> str:
        """Look at the host; the same as GET /mergelab/v1/health."""
        shown: list[str] = []
        message = guarded(lambda: shown.append(as_html(look_at(self._workspace))))
        return message or shown[0]

    def on_arch(self, label: str) -> list[str]:
        """Another architecture."""
        return [self._drawn(label), ""]

    def on_save(self, label: str) -> str:
        """Write the picture into the data folder."""
        from lib_merge.analysis.anatomy import anatomy_of_arch
        from lib_merge.analysis.diagram import diagram
        from lib_merge.analysis.drawing import save_drawing

        arch_id = self._ids[label]
        folder = Path(self._data()) / "diagrams"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            drawing = diagram(anatomy_of_arch(arch_id))
            for suffix in (".svg", ".png"):
                save_drawing(drawing, folder / f"{arch_id}{suffix}")
        except (MergeError, OSError) as fault:
            text = problems_of(fault) if isinstance(fault, MergeError) else [str(fault)]
            return markup.errors(text)
        return markup.success(f"Saved {arch_id}.svg and {arch_id}.png in {folder}.")

    def _drawn(self, label: str) -> str:
        from lib_merge.analysis.anatomy import anatomy_of_arch
        from lib_merge.analysis.diagram import diagram
        from lib_merge.analysis.drawing import to_svg

        drawing = diagram(anatomy_of_arch(self._ids[label]))
        return f'<div class="merge-figure">{to_svg(drawing, is_file=False)}</div>'


def _drawable() -> list[tuple[str, str]]:
    """(id, label) of every architecture whose keys are listed."""
    from lib_merge.analysis.anatomy import drawable
    from lib_merge.arch import architectures

    return [(arch_id, architectures().get(arch_id).label) for arch_id in drawable()]


def methods_table(text: str) -> str:
    """The methods that have every word of a text, with formula and source."""
    words = str(text or "").lower().split()
    found = [m for m in methods() if all(word in _words(m) for word in words)]
    if not found:
        return markup.empty("No method has these words.")
    rows = [(m.label, m.id, m.formula, m.source) for m in found]
    return markup.table(("Method", "Id", "Formula", "Source"), rows)


def _words(method: MergeMethod) -> str:
    parts = (method.id, method.label, method.formula, method.source)
    return " ".join(parts).lower()


def _control(kind: Any, *args: Any, **options: Any) -> Any:
    return compat.make(kind, *args, interactive=True, **options)


def build(workspace: Workspace) -> HelpPage:
    """Build the page inside the current Blocks."""
    return HelpPage(workspace)
