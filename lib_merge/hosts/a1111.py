"""AUTOMATIC1111's WebUI: one torch model whose modules are named as in the file.

Source: AUTOMATIC1111/stable-diffusion-webui 1.10.1, modules/sd_models.py and
extensions-builtin/Lora/networks.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import Host
from lib_merge.hosts import HostKind
from lib_merge.hosts._clip_names import VAE, is_picture_key
from lib_merge.hosts._host import WebUiHost
from lib_merge.hosts._live import Slot, collect, named_tensors
from lib_merge.hosts._loader import (
    WebUiLoader,
    chosen_vae,
    own_vae_tensors,
    whole_slots,
)
from lib_merge.hosts._webui import (
    chosen_file,
    connect,
    is_loaded,
    is_webui,
    version,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class A1111Loader(WebUiLoader):
    """Loader port of A1111."""

    def _model(self) -> Any:
        # Not shared.sd_model: that property loads the model and waits for it.
        return self._ui.sd_models.model_data.sd_model

    def _load(self, info: Any) -> None:
        sd_models = self._ui.sd_models
        # At start A1111 loads in a thread of its own; two loads would collide.
        sd_models.model_data.get_sd_model()
        sd_models.reload_model_weights(info=info)

    def _load_after_failure(self, info: Any) -> None:
        # A1111 has taken its prompt handling off the old model and left it so.
        self._reload(info)

    def _reload(self, info: Any) -> None:
        self._ui.sd_models.reload_model_weights(info=info, forced_reload=True)

    def _wanted(self) -> object:
        return (chosen_file(self._ui), self._ui.sd_vae.loaded_vae_file)

    def _unet(self, model: Any) -> Any:
        return model.model.diffusion_model

    def _vae(self, model: Any) -> Any:
        return model.first_stage_model

    def _undo_loras(self, model: Any) -> None:
        # Once any LoRA was used, every layer keeps a copy of its former weights, and
        # puts it back at the next prompt with other LoRAs: the merge would vanish.
        networks = sys.modules.get("networks")
        restore = getattr(networks, "network_restore_weights_from_backup", None)
        forget = getattr(networks, "network_reset_cached_weight", None)
        if restore is None or forget is None:
            return
        for module in model.modules():
            if hasattr(module, "network_weights_backup"):
                restore(module)
                forget(module)

    def _tensors(self, model: Any) -> Mapping[str, Sequence[Tensor]]:
        named = collect(named_tensors(model))
        found = {key: t for key, t in named.items() if is_picture_key(key)}
        if not chosen_vae(self._ui):
            return found
        kept = {key: t for key, t in found.items() if not key.startswith(VAE)}
        return {**kept, **own_vae_tensors(self._ui)}

    def _slots(
        self, model: Any, tensors: Mapping[str, Sequence[Tensor]], key: str
    ) -> tuple[Slot, ...]:
        return whole_slots(tensors, key, self._via(key))

    def _via(self, key: str) -> torch.dtype | None:
        """A1111 halves the whole model while loading, whatever it widens later."""
        import torch

        options = self._ui.shared.cmd_opts
        is_kept = options.no_half or (key.startswith(VAE) and options.no_half_vae)
        return None if is_kept else torch.float16

    def _is_used(self, model: Any, key: str) -> bool:
        return is_picture_key(key) and not (
            chosen_vae(self._ui) and key.startswith(VAE)
        )

    def _refusal(self, model: Any) -> str | None:
        unet = getattr(self._ui.sd_unet, "current_unet", None)
        if unet is not None:
            name = getattr(getattr(unet, "option", None), "label", "another UNet")
            return (
                f"Pictures come from '{name}' and not from the checkpoint's UNet; set "
                "'SD Unet' to None in the WebUI's settings."
            )
        if any(hasattr(module, "fp16_weight") for module in model.modules()):
            return (
                "The model is stored in fp8 with a half-precision copy for LoRAs; set "
                "'FP8 weight' to Disable in the WebUI's settings."
            )
        return None


def detect() -> Host | None:
    """A1111: the WebUI's modules, and none of any Forge's."""
    if not is_webui():
        return None
    ui = connect()
    is_forge = hasattr(ui.sd_models, "forge_model_reload")
    if is_forge or is_loaded("modules_forge.main_thread"):
        return None
    return WebUiHost("a1111", version("AUTOMATIC1111 WebUI"), ui, A1111Loader(ui))


KIND = HostKind("a1111", detect)
