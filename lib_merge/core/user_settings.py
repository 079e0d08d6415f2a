"""The user's own settings: one declaration for every host, the tab and AutoMBW."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

MIN_MEMORY_MB = 64
"""Below this no SDXL tensor could be merged at all."""

_DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:\d{1,2})?")


@dataclass(frozen=True)
class SettingText:
    """What people see of a setting.

    Attributes:
        label: Its name.
        info: What it does, and what empty or 0 means.
    """

    label: str
    info: str


def _setting(default: str | int, label: str, info: str) -> Any:
    return field(default=default, metadata={"text": SettingText(label, info)})


@dataclass(frozen=True)
class UserSettings:
    """Everything that a user sets once, with the values that are used.

    Folders are texts here: a host says what a relative one is relative to.
    """

    recipes_dir: str = _setting(
        "",
        "Folder for recipes",
        "Saved recipes and the history of merges; empty: recipes in the data folder",
    )
    studies_dir: str = _setting(
        "",
        "Folder for studies",
        "AutoMBW keeps its folders studies and tournaments there, as the command "
        "line's --out does; empty: the data folder",
    )
    outputs_dir: str = _setting(
        "",
        "Folder for merged models",
        "Where merged models are saved; inside a WebUI it lies in the checkpoint "
        "folder; empty: the host's own",
    )
    memory_mb: int = _setting(
        0,
        "Memory for merging, in MB",
        "Most memory for a merge's buffers, models apart; 0: 2048",
    )
    merge_device: str = _setting(
        "",
        "Device that merges are computed on",
        "cpu, or cuda:0 where torch has CUDA; empty: cpu",
    )
    scorer_device: str = _setting(
        "",
        "Device that scorers run on",
        "cpu, or cuda:0 where torch has CUDA; empty: where pictures are rendered",
    )
    storage_url: str = _setting(
        "",
        "Storage of new studies",
        "What the AutoMBW page offers: postgresql://..., mysql://..., "
        "sqlite:///FILE or journal:FILE; empty: each study's own file",
    )
    scorer_cache: str = _setting(
        "",
        "Folder for scorers' weights",
        "Looked through first, and where downloads go; empty: the caches in the "
        "user's home",
    )

    @property
    def budget_bytes(self) -> int | None:
        """The memory budget, or None for the engine's own."""
        return self.memory_mb * 1024 * 1024 if self.memory_mb else None


NAMES = tuple(item.name for item in fields(UserSettings))
"""Every setting's permanent id."""

DEFAULTS = UserSettings()


def text_of(name: str) -> SettingText:
    """A setting's label and explanation."""
    found: SettingText = UserSettings.__dataclass_fields__[name].metadata["text"]
    return found


class SettingsStore(Protocol):
    """Where a host keeps the settings."""

    @property
    def place(self) -> str:
        """Where that is, for people."""
        ...

    def read(self) -> Mapping[str, object]:
        """What is stored, as it is; settings that were never changed may lack."""
        ...

    def write(self, settings: UserSettings) -> None:
        """Store all of them.

        Raises:
            HostError: The host's settings are frozen, or the file cannot be written.
        """
        ...

    def problems(self, settings: UserSettings) -> tuple[str, ...]:
        """What this host has against well written settings, a sentence each."""
        ...


def read_settings(
    values: Mapping[str, object],
) -> tuple[UserSettings, tuple[str, ...]]:
    """Settings out of what a form or a file holds.

    Args:
        values: By name; what lacks has its default, unknown names are passed over.

    Returns:
        The settings, with the default in place of what cannot be used, and a sentence
        for each such value.
    """
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name in NAMES:
        value = values.get(name, getattr(DEFAULTS, name))
        reader = _READERS.get(name, _text)
        try:
            found[name] = reader(value)
        except ValueError as fault:
            label = text_of(name).label
            problems.append(f"{label} (MergeLab's settings): {fault}.")
    return UserSettings(**found), tuple(problems)


def _text(value: object) -> str:
    if not isinstance(value, str) and value is not None:
        raise ValueError(f"{value!r:.60} is no text; type one or leave it empty")
    text = (value or "").strip()
    if "\0" in text or "\n" in text:
        raise ValueError("it has a line break or a zero byte; type one line")
    return text


def _memory(value: object) -> int:
    try:
        number = float(str(value if value not in (None, "") else 0))
    except ValueError:
        raise ValueError(f"'{value!s:.40}' is no number; give MB, e.g. 2048") from None
    if number == 0:
        return 0
    if not MIN_MEMORY_MB <= number < 1 << 24:
        raise ValueError(
            f"{number:g} MB cannot be; give at least {MIN_MEMORY_MB}, or 0 for the "
            "usual 2048"
        )
    return int(number)


def _device(value: object) -> str:
    text = _text(value).lower()
    if text and not _DEVICE.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is no device; write cpu or cuda:0")
    return text


_READERS = {"memory_mb": _memory, "merge_device": _device, "scorer_device": _device}
