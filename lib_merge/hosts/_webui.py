"""What the WebUIs have in common: the modules of the host and its checkpoint list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.core.ports import CheckpointEntry
from lib_merge.errors import HostError, MemoryLimitError, MergeError
from lib_merge.hosts._gate import Gate

DATA_FOLDER = "mergelab"
"""Under the WebUI's data path, beside `extensions`; no update of either touches it."""


@dataclass(frozen=True)
class WebUi:
    """The host's own modules, looked up once; what is in them is read at each use."""

    shared: Any
    sd_models: Any
    processing: Any
    scripts: Any
    sd_samplers: Any
    sd_vae: Any
    sd_unet: Any
    paths: Any
    devices: Any
    gate: Gate


def is_loaded(name: str) -> bool:
    """Whether the host has imported this module."""
    return name in sys.modules


def is_webui() -> bool:
    """Whether this process is a WebUI whose model handling is up."""
    return is_loaded("modules.sd_models") and is_loaded("modules.processing")


def connect() -> WebUi:
    """Look up the host's modules; only after `is_webui`."""
    from modules import (
        call_queue,
        devices,
        paths,
        processing,
        scripts,
        sd_models,
        sd_samplers,
        sd_unet,
        sd_vae,
        shared,
    )

    return WebUi(
        shared=shared,
        sd_models=sd_models,
        processing=processing,
        scripts=scripts,
        sd_samplers=sd_samplers,
        sd_vae=sd_vae,
        sd_unet=sd_unet,
        paths=paths,
        devices=devices,
        gate=Gate(call_queue.queue_lock, _main_thread()),
    )


def _main_thread() -> Any:
    try:
        from modules_forge import main_thread
    except ImportError:
        return None
    return main_thread


@contextmanager
def host_errors(ui: WebUi, what: str) -> Iterator[None]:
    """Turn whatever the host raises into an error of ours with the original as cause.

    Args:
        ui: The host.
        what: What was tried, as a sentence's subject: "Loading x.safetensors".
    """
    import torch

    try:
        yield
    except MergeError:
        raise
    except (torch.cuda.OutOfMemoryError, MemoryError) as fault:
        ui.devices.torch_gc()
        raise MemoryLimitError(
            f"{what} ran out of memory: {fault}. Make it smaller, or free memory."
        ) from fault
    except Exception as fault:
        # A host raises anything, bare Exception included; it is translated here only.
        raise HostError(
            f"{what} failed in the WebUI: {type(fault).__name__}: {fault}"
        ) from fault


def version(name: str) -> str:
    """The host's name with the version that its launcher tells, where it tells one."""
    launcher = sys.modules.get("modules.launch_utils")
    tell = getattr(launcher, "git_tag", None)
    tag = str(tell()).strip() if tell is not None else ""
    return f"{name} {tag}" if tag and tag != "<none>" else name


def clear_prompt_caches(processing: Any) -> None:
    """Forget encoded prompts: hosts key them by checkpoint, not by weights."""
    base = processing.StableDiffusionProcessing
    txt2img = processing.StableDiffusionProcessingTxt2Img
    # New lists: a job that is being built has bound the old ones already.
    for owner, names in (
        (base, ("cached_c", "cached_uc")),
        (txt2img, ("cached_hr_c", "cached_hr_uc")),
    ):
        for name in names:
            setattr(owner, name, [None, None, None])


CHECKPOINT_OPTION = "sd_model_checkpoint"
"""The option that tells every host which checkpoint the next picture is made with."""


def chosen_file(ui: WebUi) -> str:
    """The file that the user chose, by the host's options; the title if unknown."""
    title = ui.shared.opts.data.get(CHECKPOINT_OPTION) or ""
    info = ui.sd_models.checkpoint_aliases.get(title)
    return str(title if info is None else info.filename)


OUTPUTS_OPTION = "mergelab_outputs_dir"
"""Our setting for where merged models go (see `_settings`)."""


def checkpoint_dir(ui: WebUi) -> Path:
    """The folder that the host looks for checkpoints in."""
    chosen = getattr(ui.shared.cmd_opts, "ckpt_dir", None)
    return Path(chosen or ui.sd_models.model_path).resolve()


class WebUiCatalog:
    """The host's checkpoint list."""

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui

    def checkpoints(self) -> tuple[CheckpointEntry, ...]:
        """Every checkpoint of the host's list, in its order."""
        infos = list(self._ui.sd_models.checkpoints_list.values())
        # From a list: reForge walks over every object while it empties a model, and a
        # tuple that is being filled from a generator breaks when it is looked at.
        return tuple([_entry(info) for info in infos])

    def refresh(self) -> None:
        """Have the host scan its folders, as its own refresh button does."""
        self._ui.sd_models.list_models()

    def output_dir(self) -> Path:
        """The host's own checkpoint folder, or the user's folder inside it."""
        folder = checkpoint_dir(self._ui)
        chosen = str(getattr(self._ui.shared.opts, OUTPUTS_OPTION, "") or "").strip()
        inside = (folder / chosen).resolve()
        # What lies elsewhere the host would not list; the Settings page says so.
        folder = inside if folder in inside.parents else folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def data_dir(self) -> Path:
        """A folder of ours under the host's data path."""
        folder = Path(self._ui.paths.data_path).resolve() / DATA_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def register(self, path: Path) -> CheckpointEntry:
        """Put one file into the host's list, without a rescan of the disk.

        Raises:
            HostError: The file is not there, or its name would hide another one's.
        """
        return _entry(register(self._ui, path))


def _entry(info: Any) -> CheckpointEntry:
    return CheckpointEntry(
        title=str(info.title),
        path=Path(info.filename).resolve(),
        sha256=getattr(info, "sha256", None),
    )


def register(ui: WebUi, path: Path) -> Any:
    """Make the host's record of a file anew and return it."""
    wanted = path.resolve()
    if not wanted.is_file():
        raise HostError(f"{wanted} is not there; save it first.")
    sd_models = ui.sd_models
    info = sd_models.CheckpointInfo(str(wanted))
    for other in list(sd_models.checkpoints_list.values()):
        is_same = Path(other.filename).resolve() == wanted
        if not is_same and other.name == info.name:
            raise HostError(
                f"{wanted} would hide {other.filename}: the WebUI knows both as "
                f"'{info.name}'. Save it in {sd_models.model_path} or rename it."
            )
    # A record of the file's former contents keeps its old hash in its title.
    for title, other in list(sd_models.checkpoints_list.items()):
        if Path(other.filename).resolve() == wanted:
            sd_models.checkpoints_list.pop(title, None)
    info.register()
    return info


def find_or_register(ui: WebUi, path: Path) -> Any:
    """The host's record of a file, made now if the host has not seen it yet."""
    wanted = path.resolve()
    for info in list(ui.sd_models.checkpoints_list.values()):
        if Path(info.filename).resolve() == wanted:
            if not wanted.is_file():
                raise HostError(f"{wanted} is not there any more; refresh the list.")
            return info
    return register(ui, wanted)
