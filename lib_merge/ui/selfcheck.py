"""The self-check: host, versions, device, what is loaded, what works and what not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from lib_merge import __version__
from lib_merge.core.ports import Host
from lib_merge.errors import MergeError
from lib_merge.ui import markup

if TYPE_CHECKING:
    from lib_merge.ui.workspace import Workspace

WORKS, REFUSED, BUSY, UNKNOWN = "works", "refused", "busy", "unknown"
"""States of a check; permanent."""

PACKAGES = (
    "torch",
    "gradio",
    "fastapi",
    "starlette",
    "numpy",
    "safetensors",
    "transformers",
    "diffusers",
    "optuna",
    "cmaes",
)
"""Packages whose versions are told, where they are installed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        id: Permanent id.
        label: What it is.
        state: works, refused, busy or unknown.
        words: What was found; of a refusal the reason and the remedy.
    """

    id: str
    label: str
    state: str
    words: str


@dataclass(frozen=True)
class SelfCheck:
    """Everything that was found.

    Attributes:
        host: The host's permanent id.
        label: Its name and version.
        versions: (name, version) of MergeLab, Python and what it runs on.
        device: Where the host computes.
        device_name: What that is.
        loaded: The loaded model's file, or None.
        is_merge: Whether the loaded model is a merge of ours.
        recipe: The recipe hash of that merge, or None.
        checks: What works and what is refused.
    """

    host: str
    label: str
    versions: tuple[tuple[str, str], ...]
    device: str
    device_name: str
    loaded: str | None
    is_merge: bool
    recipe: str | None
    checks: tuple[Check, ...]


def look_at(workspace: Workspace) -> SelfCheck:
    """Look at a host; nothing is loaded, changed or waited for."""
    host = workspace.host
    device = host.devices.device()
    loaded = recipe = None
    is_merge = False
    try:
        path = host.loader.loaded()
        loaded = None if path is None else str(path)
        is_merge = workspace.live.is_merged()
        live = workspace.live.recipe()
        recipe = None if live is None else live.digest()
        model = _model_check(workspace, loaded)
    except MergeError as fault:
        model = _load_check(REFUSED, f"The loaded model cannot be told: {fault}")
    return SelfCheck(
        host=host.id,
        label=host.label,
        versions=tuple(_versions()),
        device=device,
        device_name=device_name(device),
        loaded=loaded,
        is_merge=is_merge,
        recipe=recipe,
        checks=(_output_check(host), model, _studies_check(workspace), _judges_check()),
    )


def _versions() -> Iterator[tuple[str, str]]:
    yield "MergeLab", __version__
    yield "Python", platform.python_version()
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def device_name(device: str) -> str:
    """What a torch device is: the card's name and memory, or the processor's."""
    if device.startswith("cuda"):
        import torch

        try:
            found = torch.cuda.get_device_properties(device)
        except (RuntimeError, AssertionError, ValueError):
            return "unknown"
        return f"{found.name}, {markup.size(found.total_memory)}"
    return f"{platform.machine()}, {os.cpu_count() or 1} cores"


def _output_check(host: Host) -> Check:
    folder = host.catalog.output_dir()
    label = "Merge and save"
    if not os.access(folder, os.W_OK | os.X_OK):
        words = f"{folder} may not be written to; change its permissions."
        return Check("merge_and_save", label, REFUSED, words)
    free = shutil.disk_usage(folder).free
    words = f"Files go to {folder}, which has {markup.size(free)} free."
    return Check("merge_and_save", label, WORKS, words)


def _load_check(state: str, words: str) -> Check:
    return Check("merge_and_load", "Merge and load", state, words)


def _model_check(workspace: Workspace, loaded: str | None) -> Check:
    if workspace.studies.is_running:
        return _load_check(BUSY, "An AutoMBW study is using the loaded model.")
    if workspace.merging.is_busy:
        return _load_check(BUSY, "A merge is running.")
    if loaded is None:
        return _load_check(UNKNOWN, "No model is loaded yet; the first merge loads it.")
    refusal = getattr(workspace.host.loader, "refusal", None)
    if refusal is None:
        return _load_check(WORKS, "Weights are written in place.")
    reason = refusal()
    if reason is not None:
        return _load_check(REFUSED, str(reason))
    return _load_check(WORKS, "The loaded model's weights can be written in place.")


def _studies_check(workspace: Workspace) -> Check:
    from importlib.util import find_spec

    label = "AutoMBW studies"
    if find_spec("optuna") is None:
        words = "Optuna is not installed; restart the WebUI so that install.py adds it."
        return Check("studies", label, REFUSED, words)
    if workspace.studies.is_running:
        name = workspace.studies.current_name()
        return Check("studies", label, BUSY, f"Study '{name}' is running.")
    n_studies = len(workspace.studies.names())
    return Check("studies", label, WORKS, f"{n_studies} kept.")


def _judges_check() -> Check:
    from lib_merge.autombw.scorers import scorers

    found = [(one.id, one.unavailable_reason()) for one in scorers()]
    usable = [name for name, reason in found if reason is None]
    missing = [name for name, reason in found if reason is not None]
    words = f"Available: {', '.join(usable) or 'none'}."
    if missing:
        words += (
            f" These lack a package, weights or an address: {', '.join(missing)}; the "
            "AutoMBW page says what, where one is chosen."
        )
    return Check("scorers", "Scorers", WORKS if usable else REFUSED, words)


def as_html(found: SelfCheck) -> str:
    """The self-check as the Help page shows it."""
    versions = ", ".join(f"{name} {number}" for name, number in found.versions)
    model = found.loaded or "none"
    if found.is_merge:
        model += f", merged in memory (recipe {found.recipe or 'unknown'})"
    facts = [
        ("Host", found.label),
        ("Device", f"{found.device} ({found.device_name})"),
        ("Loaded", model),
        ("Versions", versions),
    ]
    rows = [(check.label, check.state, check.words) for check in found.checks]
    return markup.table(("", ""), facts) + markup.table(
        ("What", "State", "Found"), rows
    )
