"""The studies of one host: which are there, which one runs, what it shows."""

from __future__ import annotations

from lib_merge.core.ports import Host


class StudyDesk:
    """Starts, watches and stops studies.

    Args:
        host: What they render through.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def is_running(self) -> bool:
        """Whether a study is using the loaded model."""
        return False
