"""The loaded model of a WebUI: what is equal in all, the steps of each left open."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import LiveModel
from lib_merge.errors import HostError, MergeError
from lib_merge.hosts._clip_names import VAE, is_picture_key
from lib_merge.hosts._live import LiveWeights, Slot, quantised_name
from lib_merge.hosts._marks import Mark, is_edited, mark_of
from lib_merge.hosts._webui import (
    CHECKPOINT_OPTION,
    WebUi,
    clear_prompt_caches,
    find_or_register,
    host_errors,
)

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class WebUiLoader(ABC):
    """Loader port of a WebUI; one instance a process, since the host has one model.

    Args:
        ui: The host.
    """

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui

    # What each host does its own way

    @abstractmethod
    def _model(self) -> Any:
        """The loaded model object, or None; never loads one."""

    @abstractmethod
    def _load(self, info: Any) -> None:
        """Load a checkpoint as the host would for a user who chose it."""

    def _load_after_failure(self, info: Any) -> None:
        """Load the user's checkpoint after another one failed to load."""
        self._load(info)

    @abstractmethod
    def _reload(self, info: Any) -> None:
        """Load the current checkpoint from its file again."""

    @abstractmethod
    def _wanted(self) -> object:
        """What the host would load for its next picture."""

    @abstractmethod
    def _unet(self, model: Any) -> Any:
        """The UNet module whose parameters are named as in the file."""

    @abstractmethod
    def _vae(self, model: Any) -> Any:
        """The VAE module whose parameters are named as in the file."""

    @abstractmethod
    def _undo_loras(self, model: Any) -> None:
        """Put LoRA patches out and forget what they would put back later."""

    @abstractmethod
    def _tensors(self, model: Any) -> Mapping[str, Sequence[Tensor]]:
        """Tensors by name; UNet and VAE under their file keys."""

    @abstractmethod
    def _slots(
        self, model: Any, tensors: Mapping[str, Sequence[Tensor]], key: str
    ) -> tuple[Slot, ...]:
        """The slots of a canonical file key."""

    def _is_used(self, model: Any, key: str) -> bool:
        """Whether the host takes this file key from the checkpoint at all."""
        return is_picture_key(key)

    def _choice(self, info: Any) -> str:
        """How the host's own list of checkpoints calls one."""
        return str(info.title)

    def _refusal(self, model: Any) -> str | None:
        """A reason of this host's own for not writing in place."""
        return None

    # Loader port

    def loaded(self) -> Path | None:
        """The file of the loaded model; asking never loads one."""
        try:
            info = getattr(self._model(), "sd_checkpoint_info", None)
        except TypeError:
            # reForge is emptying it, in another thread, before it loads the next one.
            return None
        return None if info is None else Path(info.filename).resolve()

    def identity(self) -> object:
        """Changes with the model object, with loads into it and with the user's choice.

        A checkpoint that the user picked counts from that moment, not only when the
        host has loaded it: the next picture would be that model's.
        """
        return (self._stamp(), self._wanted())

    def _stamp(self) -> object:
        """The mark of the loaded model, or None while there is none."""
        try:
            return None if self.loaded() is None else self._mark(self._model()).stamp
        except (AttributeError, TypeError):
            # Pages ask at any time, also while the host takes the model apart.
            return None

    def load(self, path: Path) -> None:
        """Load through the host, unless this file is the loaded one already.

        Raises:
            HostError: The host could not load it; the cause is the host's own error.
        """
        with host_errors(self._ui, f"Loading {path.name}"):
            self._ui.gate.run(lambda: self._load_locked(path.resolve()))

    def restore(self) -> None:
        """Load the file again if anything was written since it was loaded."""
        with host_errors(self._ui, "Restoring the model"):
            self._ui.gate.run(self._restore_locked)

    @contextmanager
    def edit(self) -> Iterator[LiveModel]:
        """Open the loaded model for writing under the host's lock."""
        with self._ui.gate.hold():
            weights = self._open()
            try:
                yield weights
            finally:
                if weights.was_written:
                    self._mark(self._model()).is_edited = True
                clear_prompt_caches(self._ui.processing)

    def refusal(self) -> str | None:
        """Why the loaded model cannot be written in place; None if it can, or is none.

        For a self-check: nothing is undone and no lock is waited for, as `edit` does.
        """
        try:
            model = self._model()
            if self.loaded() is None:
                return None
            return self._refusal(model) or _storage_refusal(self._tensors(model))
        except (AttributeError, TypeError):
            # The host takes the model apart just now; `edit` waits for that.
            return None

    # Steps

    def _load_locked(self, path: Path) -> None:
        info = find_or_register(self._ui, path)
        before = self.identity()
        self._choose_and_load(info)
        if self.loaded() != path:
            raise HostError(
                f"The WebUI did not load {path}; it has {self.loaded()} instead. Its "
                "console says why."
            )
        # A changed identity promises the file's own weights. When this is true the
        # host had kept the model in memory with a merge in it, or the user had chosen
        # another one that was not loaded yet.
        is_merged = self.identity() != before and is_edited(self._model())
        on_disk = _on_disk(path)
        known = self._mark(self._model()).file
        if is_merged or (known is not None and _is_overwritten(known, on_disk)):
            self._reload(info)
        self._mark(self._model()).file = on_disk
        clear_prompt_caches(self._ui.processing)

    def _choose_and_load(self, info: Any) -> None:
        # Every picture asks this option which model to switch to. Written without its
        # callback, which on A1111 would wait for the lock that we hold; and again
        # afterwards, since a title changes once the host has hashed the file.
        data = self._ui.shared.opts.data
        former = data.get(CHECKPOINT_OPTION)
        data[CHECKPOINT_OPTION] = self._choice(info)
        is_done = False
        try:
            self._load(info)
            is_done = True
        finally:
            data[CHECKPOINT_OPTION] = self._choice(info) if is_done else former
            if not is_done:
                self._recover(former)

    def _recover(self, former: str | None) -> None:
        """Bring the user's model back after a failed load; hosts drop it first."""
        info = self._ui.sd_models.checkpoint_aliases.get(former)
        if info is None:
            return
        try:
            with host_errors(self._ui, f"Loading {info.title} again"):
                self._load_after_failure(info)
        except MergeError as fault:
            _log.warning("%s", fault)

    def _restore_locked(self) -> None:
        self._forget_edited_spares()
        model = self._model()
        if self.loaded() is None or not is_edited(model):
            return
        path = Path(model.sd_checkpoint_info.filename)
        # No reference may outlive this line: reForge empties the old object.
        del model
        self._reload(find_or_register(self._ui, path))
        if self.loaded() != path.resolve() or is_edited(self._model()):
            raise HostError(
                f"The WebUI did not load {path} again; choose it once more in the UI."
            )
        clear_prompt_caches(self._ui.processing)

    def _forget_edited_spares(self) -> None:
        """Drop merged models that the host keeps beside the current one."""
        data = self._ui.sd_models.model_data
        spares = getattr(data, "loaded_sd_models", None)
        if not spares:
            return
        for spare in list(spares):
            if spare is not data.sd_model and is_edited(spare):
                spares.remove(spare)

    def _open(self) -> LiveWeights:
        import torch

        model = self._model()
        if self.loaded() is None:
            raise HostError("The WebUI has no model loaded yet; load one first.")
        with host_errors(self._ui, "Undoing LoRAs"), torch.inference_mode():
            self._undo_loras(model)
            tensors = self._tensors(model)
        reason = self._refusal(model) or _storage_refusal(tensors)
        if reason is not None:
            raise HostError(reason)
        self._mark(model)
        return LiveWeights(
            lambda key: self._used_slots(model, tensors, key),
            lambda key: self._is_used(model, key),
        )

    def _used_slots(
        self, model: Any, tensors: Mapping[str, Sequence[Tensor]], key: str
    ) -> tuple[Slot, ...]:
        return self._slots(model, tensors, key) if is_picture_key(key) else ()

    def _mark(self, model: Any) -> Mark:
        return mark_of(model, self._unet(model), (self._vae(model),))


def _on_disk(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return (str(path), found.st_size, found.st_mtime_ns)


def _is_overwritten(known: tuple[str, int, int], on_disk: tuple[str, int, int]) -> bool:
    """Whether a file was saved anew since it was loaded; hosts go by its name only."""
    return known[0] == on_disk[0] and known != on_disk


def _storage_refusal(tensors: Mapping[str, Sequence[Tensor]]) -> str | None:
    found = quantised_name(tensors)
    if found is None:
        return None
    return (
        f"The loaded model is stored quantised ({found}), and merged weights cannot be "
        "written into it exactly. Choose full precision in the WebUI's settings (fp8 "
        "weight or 'Diffusion in Low Bits') and load the model again."
    )


def chosen_vae(ui: WebUi) -> bool:
    """Whether the user's own VAE stands in for the checkpoint's (A1111 and reForge)."""
    return bool(getattr(ui.sd_vae, "loaded_vae_file", None))


def own_vae_tensors(ui: WebUi) -> dict[str, list[Tensor]]:
    """The checkpoint's VAE that the host put aside for the user's, by file key.

    It comes back when the user chooses "None" again, and must hold the merge then.
    """
    aside = getattr(ui.sd_vae, "base_vae", None) or {}
    return {f"{VAE}{name}": [tensor] for name, tensor in aside.items()}


def whole_slots(
    tensors: Mapping[str, Sequence[Tensor]], key: str, via: Any = None
) -> tuple[Slot, ...]:
    """Slots for tensors that are named as in the file."""
    return tuple(Slot(0, tensor, via) for tensor in tensors.get(key, ()))
