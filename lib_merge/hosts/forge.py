"""Forge (and Neo): a model that exists from the first job on, in inference tensors.

Source: lllyasviel/stable-diffusion-webui-forge dfdcbab6, modules/sd_models.py,
modules_forge/main_entry.py and backend/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.ports import Host
from lib_merge.hosts import HostKind
from lib_merge.hosts._forges import ForgesLoader
from lib_merge.hosts._host import WebUiHost
from lib_merge.hosts._webui import connect, is_webui, version

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_TEXT_WIDTHS = {768: "clip_l", 1280: "clip_g", 1024: "clip_h"}
_TEXT_ENDINGS = (
    "text_model.encoder.layers.0.layer_norm1.bias",
    "transformer.resblocks.0.ln_1.bias",
)
_VAE_KEYS = ("decoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight")


class ForgeLoader(ForgesLoader):
    """Loader port of Forge."""

    def _model(self) -> Any:
        # A FakeInitialModel, or None on Neo, until the first job.
        return self._ui.sd_models.model_data.sd_model

    def _load(self, info: Any) -> None:
        if self._is_current(info):
            return
        self._load_anew()

    def _reload(self, info: Any) -> None:
        self._ui.sd_models.model_data.forge_hash = ""
        self._load_anew()

    def _load_anew(self) -> None:
        from modules_forge import main_entry

        main_entry.refresh_model_loading_parameters()
        data = self._ui.sd_models.model_data
        is_done = False
        try:
            self._ui.sd_models.forge_model_reload()
            is_done = True
        finally:
            if not is_done:
                # The old model is gone but its hash is not: Forge would take None
                # for it at the next job.
                data.forge_hash = ""

    def _is_current(self, info: Any) -> bool:
        data = self._ui.sd_models.model_data
        parameters = data.forge_loading_parameters
        if not parameters or data.forge_hash != str(parameters):
            return False
        return self.loaded() == Path(info.filename).resolve()

    def _choice(self, info: Any) -> str:
        # Its list leaves the hash out, and is empty when the option is not in it.
        options = self._ui.shared.opts
        is_short = getattr(options, "sd_checkpoint_dropdown_use_short", False)
        return str(info.short_title if is_short else info.name)

    def _wanted(self) -> object:
        # This text is what Forge compares to decide whether to load.
        return str(self._ui.sd_models.model_data.forge_loading_parameters)

    def _undo_loras(self, model: Any) -> None:
        self._drop_patched(model)
        objects = model.forge_objects
        patchers = (objects.unet, objects.clip.patcher)
        if all(hasattr(patcher, "refresh_loras") for patcher in patchers):
            for patcher in patchers:
                patcher.refresh_loras()
            return
        # Newer Neo patches as ComfyUI does, and unpatches on unloading.
        from backend import memory_management

        memory_management.unload_all_models()
        for patcher in patchers:
            if getattr(patcher, "backup", None):
                patcher.unpatch_model(patcher.offload_device)

    def _text_via(
        self, tensors: Mapping[str, Sequence[Tensor]], encoder: str, name: str
    ) -> torch.dtype | None:
        # Embeddings are loaded in the encoder's type and widened by the first prompt.
        if not name.startswith("text_model.embeddings."):
            return None
        norm = f"{encoder}.transformer.text_model.final_layer_norm.weight"
        found = tensors.get(norm)
        return found[0].dtype if found else None

    def _foreign_parts(self, model: Any) -> frozenset[str]:
        parameters = self._ui.sd_models.model_data.forge_loading_parameters
        files = parameters.get("additional_modules") or ()
        parts = (_parts_in(str(file)) for file in files)
        return frozenset().union(*parts)


@lru_cache(maxsize=32)
def _parts_in(file: str) -> frozenset[str]:
    """What a VAE or text-encoder file of the user replaces, by its keys and shapes."""
    from safetensors import safe_open

    if not file.endswith(".safetensors"):
        is_vae = "vae" in Path(file).parent.name.lower()
        return frozenset({"vae"} if is_vae else _TEXT_WIDTHS.values())
    found = set()
    with safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118 - safe_open is no mapping
            if key in _VAE_KEYS:
                found.add("vae")
            if key.endswith(_TEXT_ENDINGS):
                width = opened.get_slice(key).get_shape()[0]
                found.add(_TEXT_WIDTHS.get(width, ""))
    return frozenset(found - {""})


def _label() -> str:
    try:
        from modules_forge import forge_version
    except ImportError:
        return version("Forge WebUI")
    return f"Forge WebUI {forge_version.version}"


def detect() -> Host | None:
    """Forge: models load by `forge_model_reload`, the classic calls are stubs."""
    if not is_webui():
        return None
    ui = connect()
    if not hasattr(ui.sd_models, "forge_model_reload"):
        return None
    return WebUiHost("forge", _label(), ui, ForgeLoader(ui))


KIND = HostKind("forge", detect)
