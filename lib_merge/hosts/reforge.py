"""reForge (and Forge Classic): an A1111 shell around ComfyUI's patchers.

Source: Panchovix/stable-diffusion-webui-reForge 3b56b268, modules/sd_models.py,
modules_forge/forge_loader.py and ldm_patched/modules/.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import Host
from lib_merge.hosts import HostKind
from lib_merge.hosts._clip_names import VAE
from lib_merge.hosts._forges import ForgesLoader
from lib_merge.hosts._host import WebUiHost
from lib_merge.hosts._live import Slot
from lib_merge.hosts._loader import chosen_vae, own_vae_tensors, whole_slots
from lib_merge.hosts._webui import (
    chosen_file,
    connect,
    is_loaded,
    is_webui,
    version,
)

if TYPE_CHECKING:
    from torch import Tensor

_ALL_TEXT = frozenset({"clip_l", "clip_g", "clip_h"})
_OLD_CLIP_G = "use_old_clip_g_load_and_ztsnr_application"


class ReforgeLoader(ForgesLoader):
    """Loader port of reForge."""

    def _model(self) -> Any:
        return self._ui.sd_models.model_data.sd_model

    def _load(self, info: Any) -> None:
        self._ui.sd_models.reload_model_weights(info=info)

    def _reload(self, info: Any) -> None:
        sd_models = self._ui.sd_models
        number = self._mark(self._model()).number
        sd_models.reload_model_weights(info=info, forced_reload=True)
        if self._mark(self._model()).number != number:
            return
        # Forge Classic takes the word but keeps the model that is loaded.
        from ldm_patched.modules import model_management

        sd_models.model_data.set_sd_model(None)
        model_management.unload_all_models()
        sd_models.reload_model_weights(info=info)

    def _wanted(self) -> object:
        return (chosen_file(self._ui), self._ui.sd_vae.loaded_vae_file)

    def _undo_loras(self, model: Any) -> None:
        from ldm_patched.modules import model_management

        # Held until the unloading is done: a patcher that is collected before takes
        # the knowledge of what it has patched with it.
        patched = (model.forge_objects, model.forge_objects_after_applying_lora)
        self._drop_patched(model)
        model_management.unload_all_models()
        objects = model.forge_objects
        # Only the models of the main device were unloaded; CLIP may live on the CPU.
        for patcher in (objects.unet, objects.clip.patcher):
            if getattr(patcher, "backup", None):
                patcher.unpatch_model(patcher.offload_device)
        del patched

    def _tensors(self, model: Any) -> Mapping[str, Sequence[Tensor]]:
        named = super()._tensors(model)
        if not chosen_vae(self._ui):
            return named
        kept = {name: t for name, t in named.items() if not name.startswith(VAE)}
        return {**kept, **own_vae_tensors(self._ui)}

    def _slots(
        self, model: Any, tensors: Mapping[str, Sequence[Tensor]], key: str
    ) -> tuple[Slot, ...]:
        if key.startswith(VAE):
            return whole_slots(tensors, key)
        return super()._slots(model, tensors, key)

    def _part_slots(
        self, tensors: Mapping[str, Sequence[Tensor]], encoder: str, part: Any
    ) -> tuple[Slot, ...]:
        if part.name != "text_projection.weight":
            return super()._part_slots(tensors, encoder, part)
        if encoder != "clip_g" or getattr(self._ui.shared.opts, _OLD_CLIP_G, False):
            # reForge leaves its own identity matrix there.
            return ()
        found = tensors.get(f"{encoder}.text_projection", ())
        # Kept as OpenCLIP has it, the other way round than Transformers.
        return tuple(Slot(0, t if part.is_transposed else t.t()) for t in found)

    def _is_used(self, model: Any, key: str) -> bool:
        is_projection = key.endswith((".text_projection", ".text_projection.weight"))
        if is_projection and not key.startswith("conditioner.embedders."):
            return False
        if is_projection and getattr(self._ui.shared.opts, _OLD_CLIP_G, False):
            return False
        return super()._is_used(model, key)

    def _foreign_parts(self, model: Any) -> frozenset[str]:
        parts = frozenset({"vae"}) if chosen_vae(self._ui) else frozenset()
        module = sys.modules.get("modules.sd_text_encoder")
        chosen: Any = getattr(module, "current_text_encoder", None)
        clip = getattr(chosen, "clip_model", None)
        if clip is None:
            return parts
        is_used = clip.cond_stage_model is model.forge_objects.clip.cond_stage_model
        # In "Automatic" it is the checkpoint's own, read from the same file.
        is_own = Path(chosen.te_info.filename).resolve() == self.loaded()
        return parts | _ALL_TEXT if is_used and not is_own else parts


def detect() -> Host | None:
    """reForge: ComfyUI's model management under A1111's loading calls."""
    if not is_webui() or not is_loaded("ldm_patched.modules.model_management"):
        return None
    ui = connect()
    is_forge = hasattr(ui.sd_models, "forge_model_reload")
    if is_forge or not is_loaded("modules_forge.main_thread"):
        return None
    return WebUiHost("reforge", version("reForge WebUI"), ui, ReforgeLoader(ui))


KIND = HostKind("reforge", detect)
