"""The standalone app: the tab on 127.0.0.1, without a WebUI."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.core.ports import Host
from lib_merge.ui import build_tab, compat
from lib_merge.ui.workspace import workspace_of

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunningApp:
    """A served tab.

    Attributes:
        address: What to open in a browser.
        blocks: The outermost `gr.Blocks`.
    """

    address: str
    blocks: Any

    @property
    def app(self) -> Any:
        """The FastAPI app that is served."""
        return compat.served_app(self.blocks)

    def close(self) -> None:
        """Stop serving; jobs that run go on."""
        self.blocks.close(verbose=False)


def launch_app(host: Host, port: int | None = None) -> RunningApp:
    """Serve the tab; returns at once, the server runs in threads of its own.

    Args:
        host: What it merges, renders and lists checkpoints through.
        port: Where to listen on 127.0.0.1; None takes the first free one.

    Raises:
        InputError: The port is taken.
    """
    style = (_ROOT / "style.css").read_text(encoding="utf-8")
    with compat.standalone_blocks(title="MergeLab") as blocks:
        build_tab(host)
        compat.handle(blocks.load, None, js=scripts_loader())
    studies = workspace_of(host).preferences.studies_dir()
    folders = [str(host.catalog.data_dir()), str(studies)]
    address = compat.launch(blocks, port=port, css=style, allowed_paths=folders)
    return RunningApp(address, blocks)


def scripts_loader() -> str:
    """A JavaScript function that runs the scripts a WebUI would have loaded."""
    files = sorted((_ROOT / "javascript").glob("*.js"))
    sources = [file.read_text(encoding="utf-8") for file in files]
    return (
        "() => { for (const source of " + json.dumps(sources) + ") {"
        " const tag = document.createElement('script');"
        " tag.textContent = source; document.head.appendChild(tag); } }"
    )
