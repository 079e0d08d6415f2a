"""The AutoMBW page: set up a study, watch it, keep its best merge."""

from __future__ import annotations

from lib_merge.ui import compat
from lib_merge.ui.workspace import Workspace


def build(workspace: Workspace) -> None:
    """Build the page inside the current Blocks."""
    compat.html(str(workspace.studies.is_running))
