"""MergeLab's settings without a WebUI: a small JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from lib_merge.core.user_settings import UserSettings
from lib_merge.errors import HostError


class SettingsFile:
    """SettingsStore over a file of its own.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    def read(self) -> Mapping[str, object]:
        """What the file says; nothing where it is not there or damaged."""
        found = self._content()
        return found if isinstance(found, dict) else {}

    def write(self, settings: UserSettings) -> None:
        """Write the file anew.

        Raises:
            HostError: It cannot be written.
        """
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(settings), indent=2), encoding="utf-8")
            part.replace(self._path)
        except OSError as fault:
            with suppress(OSError):
                part.unlink()
            raise HostError(
                f"{self._path} cannot be written ({fault.strerror}); look at the "
                "folder's rights."
            ) from fault

    def problems(self, settings: UserSettings) -> tuple[str, ...]:
        """A damaged file: the settings that were in it do not hold."""
        if self._content() is None:
            return (
                f"{self._path} cannot be read, so every setting has its default; save "
                "the settings again, or remove the file.",
            )
        return ()

    def _content(self) -> object:
        """What is in the file: {} where there is none, None where it is damaged."""
        try:
            found: object = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None
