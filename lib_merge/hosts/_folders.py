"""A catalog over plain folders, for a host that has no catalog of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_merge.core.ports import CheckpointEntry
from lib_merge.core.user_settings import SettingsStore, read_settings
from lib_merge.errors import HostError


class Folders:
    """Catalog over plain folders.

    Args:
        folders: Where models lie.
        output_dir: Where merges go, unless the user has set another folder.
        data_dir: Where studies, recipes and reports go.
        settings: The user's settings.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        output_dir: Path,
        data_dir: Path,
        settings: SettingsStore | None = None,
    ) -> None:
        self._settings = settings
        self._folders = tuple(dict.fromkeys(Path(f).resolve() for f in folders))
        self._output_dir = Path(output_dir).resolve()
        self._data_dir = Path(data_dir).resolve()

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        """Every *.safetensors of the folders, by name."""
        folders = dict.fromkeys((*self._folders, self._chosen_output()))
        found = [p for folder in folders for p in folder.glob("*.safetensors")]
        found.sort(key=lambda path: (path.name.lower(), str(path)))
        return tuple(self._entry(path) for path in found)

    def refresh(self) -> None:
        """Nothing to do: folders are read anew at every listing."""

    def output_dir(self) -> Path:
        """Where merged checkpoints go."""
        folder = self._chosen_output()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _chosen_output(self) -> Path:
        """The user's folder; a relative one lies below the usual folder."""
        if self._settings is None:
            return self._output_dir
        settings, _ = read_settings(self._settings.read())
        return (self._output_dir / settings.outputs_dir).resolve()

    def data_dir(self) -> Path:
        """Where studies, recipes and reports go."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        return self._data_dir

    def register(self, path: Path) -> CheckpointEntry:
        """An entry for a saved file; folders are read anew at every listing.

        Raises:
            HostError: The file is not there.
        """
        wanted = path.resolve()
        if not wanted.is_file():
            raise HostError(f"{wanted} is not there; save it first.")
        return self._entry(wanted)

    def _entry(self, path: Path) -> CheckpointEntry:
        return CheckpointEntry(title=path.name, path=path)
