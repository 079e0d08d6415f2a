"""A catalog over plain folders, for a host that has no catalog of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_merge.core.ports import CheckpointEntry
from lib_merge.errors import HostError


class Folders:
    """Catalog over plain folders."""

    def __init__(
        self, folders: Sequence[Path], output_dir: Path, data_dir: Path
    ) -> None:
        self._folders = tuple(dict.fromkeys(Path(f).resolve() for f in folders))
        self._output_dir = Path(output_dir).resolve()
        self._data_dir = Path(data_dir).resolve()

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        """Every *.safetensors of the folders, by name."""
        found = [p for folder in self._folders for p in folder.glob("*.safetensors")]
        found.sort(key=lambda path: (path.name.lower(), str(path)))
        return tuple(self._entry(path) for path in found)

    def refresh(self) -> None:
        """Nothing to do: folders are read anew at every listing."""

    def output_dir(self) -> Path:
        """Where merged checkpoints go."""
        self._output_dir.mkdir(parents=True, exist_ok=True)
        return self._output_dir

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
