"""The user's settings as jobs use them: folders made, options built, all checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.ports import Host
from lib_merge.core.user_settings import UserSettings, read_settings, text_of
from lib_merge.errors import InputError, MergeError

if TYPE_CHECKING:
    from lib_merge.core.recipe import Recipe
    from lib_merge.engine.live import LiveMerger
    from lib_merge.engine.run import RunOptions

_FOLDERS = ("recipes_dir", "studies_dir", "scorer_cache")


class Preferences:
    """What the tab, AutoMBW and the API ask for a setting.

    Every answer is read anew, so that a change in the host's settings holds at once.
    A value that cannot be used counts as never set, until `check` says so.

    Args:
        host: Whose settings they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def current(self) -> UserSettings:
        """The settings that hold now."""
        return read_settings(self._host.settings.read())[0]

    @property
    def place(self) -> str:
        """Where they are kept, for people."""
        return self._host.settings.place

    def check(self) -> None:
        """Refuse to begin something with settings that cannot hold.

        Raises:
            InputError: Every problem, a sentence a line.
        """
        settings, problems = read_settings(self._host.settings.read())
        problems = (*problems, *self._problems(settings))
        if problems:
            raise InputError("\n".join(problems))

    def save(self, values: Mapping[str, object]) -> UserSettings:
        """Check and store what a form says.

        Raises:
            InputError: Every problem, a sentence a line; nothing was stored.
            HostError: The host does not store it.
        """
        settings, problems = read_settings(values)
        problems = (*problems, *self._problems(settings))
        if problems:
            raise InputError("\n".join(problems))
        self._host.settings.write(settings)
        self.apply_scorer_cache()
        return settings

    # What jobs use

    def recipes_dir(self) -> Path:
        """Where recipes and the history of merges are kept; made if need be."""
        return self._folder("recipes_dir", "recipes")

    def studies_dir(self) -> Path:
        """Where AutoMBW keeps `studies` and `tournaments`; made if need be."""
        return self._folder("studies_dir", "")

    def run_options(self) -> RunOptions:
        """How merges are run."""
        from lib_merge.engine.run import RunOptions

        settings = self.current
        usual = RunOptions()
        return RunOptions(
            budget_bytes=settings.budget_bytes or usual.budget_bytes,
            device=settings.merge_device or usual.device,
        )

    def scorer_device(self) -> str:
        """Where scorers run."""
        return self.current.scorer_device or self._host.devices.device()

    def apply_scorer_cache(self) -> None:
        """Have scorers look for their weights in the user's folder first."""
        from lib_merge.autombw.scorers import use_cache

        text = self.current.scorer_cache
        use_cache(self._resolved(text) if text else None)

    # Checks

    def _problems(self, settings: UserSettings) -> list[str]:
        found = list(self._host.settings.problems(settings))
        found += filter(None, (self._folder_fault(settings, n) for n in _FOLDERS))
        for name in ("merge_device", "scorer_device"):
            found += _device_fault(name, getattr(settings, name))
        found += _storage_fault(settings.storage_url)
        return found

    def _folder_fault(self, settings: UserSettings, name: str) -> str:
        text = getattr(settings, name)
        if not text:
            return ""
        folder = self._resolved(text)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            return (
                f"{text_of(name).label} (MergeLab's settings): {folder} cannot be "
                f"made ({fault.strerror}); name a folder that can be written."
            )
        return ""

    def _folder(self, name: str, usual: str) -> Path:
        text = getattr(self.current, name)
        base = self._host.catalog.data_dir()
        folder = self._resolved(text) if text else base / usual
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _resolved(self, text: str) -> Path:
        """A folder as typed: relative ones lie in the data folder."""
        return (self._host.catalog.data_dir() / Path(text).expanduser()).resolve()


def _device_fault(name: str, device: str) -> list[str]:
    if device in ("", "cpu"):
        return []
    from lib_merge.engine.run import check_device

    try:
        check_device(device)
    except MergeError as fault:
        return [f"{text_of(name).label} (MergeLab's settings): {fault}"]
    return []


def _storage_fault(url: str) -> list[str]:
    if not url:
        return []
    from lib_merge.autombw.storage import StoragePlace

    try:
        StoragePlace.parse(url)
    except MergeError as fault:
        return [f"{text_of('storage_url').label} (MergeLab's settings): {fault}"]
    return []


class SettledMerger:
    """`LiveMerger` for studies: merges with the user's memory budget and device.

    Args:
        live: The merger of the loaded model.
        preferences: The user's settings, read at every merge.
    """

    def __init__(self, live: LiveMerger, preferences: Preferences) -> None:
        self._live = live
        self._preferences = preferences

    def merge(self, recipe: Recipe) -> object:
        """Make the loaded model hold a recipe's result."""
        return self._live.merge(recipe, options=self._preferences.run_options())

    def restore(self) -> None:
        """Bring the loaded file's own values back."""
        self._live.restore()

    def recipe(self) -> Recipe | None:
        """What the loaded model holds, or None when it holds a file's own values."""
        return self._live.recipe()
