"""A fake reForge: ComfyUI's patchers, teardown of the old model, a CLIP of its own."""

from __future__ import annotations

import types
import weakref
from typing import Any

import torch

from tests.support.fake_forges import (
    LORA_STEP,
    Clip,
    FakeForges,
    Objects,
    lora_keys,
    owner_of,
    package,
    set_objects,
    text_encoders,
)
from tests.support.fake_jobs import Processed, tree, under
from tests.support.fake_webui import read_checkpoint


class ModelPatcher:
    """Clones share the model and the backup; patching replaces parameters."""

    offload_device = torch.device("cpu")

    def __init__(self, model: Any, device: str, backup: Any = None) -> None:
        self.model, self.device = model, device
        self.backup: dict[str, torch.Tensor] = {} if backup is None else backup
        self.patches: list[str] = []

    def with_patches(self, names: list[str]) -> ModelPatcher:
        clone = ModelPatcher(self.model, self.device, self.backup)
        clone.patches = list(names)
        return clone

    def patch_model(self) -> None:
        self.unpatch_model(self.offload_device)
        for key in lora_keys(self.model) if self.patches else ():
            owner, name = owner_of(self.model, key)
            old = owner._parameters[name]
            assert old is not None
            self.backup[key] = old.detach().clone()
            new = old.detach() + LORA_STEP * len(self.patches)
            owner._parameters[name] = torch.nn.Parameter(new)

    def unpatch_model(self, device: Any) -> None:
        for key, tensor in self.backup.items():
            owner, name = owner_of(self.model, key)
            owner._parameters[name] = torch.nn.Parameter(tensor)
        self.backup.clear()


class FakeReforge(FakeForges):
    """Traps: options do not follow a load, forced reload guts the old object."""

    host_id = "reforge"

    def __init__(self, folder: Any) -> None:
        self.dtype = torch.float32
        # What model_management holds: weak, so a forgotten patcher is never undone.
        self.current: list[weakref.ref[ModelPatcher]] = []
        self.honours_forced_reload = True
        self.data = types.SimpleNamespace(
            sd_model=None, loaded_sd_models=[], set_sd_model=self._set_model
        )
        super().__init__(folder)

    def options(self) -> dict[str, Any]:
        return {"sd_checkpoints_limit": 1}

    def sd_models(self) -> dict[str, Any]:
        return {
            "model_data": self.data,
            "reload_model_weights": self.reload_model_weights,
        }

    def more_modules(self) -> dict[str, types.ModuleType]:
        management = types.ModuleType("ldm_patched.modules.model_management")
        management.unload_all_models = (  # type: ignore[attr-defined]
            self.unload_all_models
        )
        return {
            "ldm_patched": package("ldm_patched"),
            "ldm_patched.modules": package("ldm_patched.modules"),
            "ldm_patched.modules.model_management": management,
            "modules_forge": package("modules_forge"),
            "modules_forge.main_thread": self.main_thread.module(),
        }

    def _set_model(self, model: Any) -> None:
        self.data.sd_model = model
        if model is None:
            self.data.loaded_sd_models.clear()

    def current_model(self) -> Any:
        return self.data.sd_model or self.load_model()

    def unload_all_models(self) -> None:
        """Frees what is on the main device; CLIP may be on another."""
        for reference in self.current:
            patcher = reference()
            if patcher is not None and patcher.device == "main":
                patcher.unpatch_model(patcher.offload_device)
        self.current = []

    def select(self) -> Any:
        found = self.lists["aliases"].get(self.opts.sd_model_checkpoint)
        return found or next(iter(self.lists["list"].values()))

    def reload_model_weights(
        self, sd_model: Any = None, info: Any = None, forced_reload: bool = False
    ) -> Any:
        return self.load_model(info, forced_reload and self.honours_forced_reload)

    def load_model(self, info: Any = None, forced_reload: bool = False) -> Any:
        info = info or self.select()
        loaded = self.data.loaded_sd_models
        for model in list(loaded):
            if model.filename == info.filename:
                if not forced_reload:
                    self.data.sd_model = model
                    return model
                loaded.remove(model)
                tear_down(model)
        while len(loaded) >= self.opts.sd_checkpoints_limit:
            tear_down(loaded.pop())
        tensors = read_checkpoint(info)
        self.loads.append(info.name)
        model = self._build(tensors)
        model.filename, model.sd_checkpoint_info = info.filename, info
        loaded.insert(0, model)
        # The option that process_images goes by is left as it was.
        self.data.sd_model = model
        return model

    def _build(self, tensors: dict[str, torch.Tensor]) -> Any:
        unet = torch.nn.Module()
        unet.diffusion_model = tree(
            under(tensors, "model.diffusion_model."), self.dtype
        )
        clip = torch.nn.Module()
        for name, encoder in text_encoders(tensors).items():
            clip.add_module(name, self._encoder(name, encoder))
        vae = tree(under(tensors, "first_stage_model."), self.dtype)
        model = types.SimpleNamespace()
        objects = Objects(
            ModelPatcher(unet, "main"),
            Clip(clip, ModelPatcher(clip, "cpu")),
            types.SimpleNamespace(first_stage_model=vae),
        )
        set_objects(model, objects)
        return model

    def _encoder(self, name: str, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
        projection = tensors.pop("text_projection.weight", None)
        holder = torch.nn.Module()
        holder.transformer = tree(tensors, self.dtype)
        embeddings = holder.transformer.text_model.embeddings
        hijacked = torch.nn.Module()
        hijacked.wrapped = embeddings.token_embedding
        # Both names are visible, and both are the same parameter.
        hijacked.weight = hijacked.wrapped.weight
        embeddings.token_embedding = hijacked
        holder.logit_scale = torch.nn.Parameter(torch.tensor(4.6055))
        width = hijacked.wrapped.weight.shape[1]
        own = torch.eye(width) if projection is None else projection.T.contiguous()
        if name != "clip_g" or self.opts.data.get(OLD_CLIP_G):
            own = torch.eye(width)
        holder.text_projection = torch.nn.Parameter(own.to(self.dtype))
        return holder

    def before_picture(self, job: Any) -> None:
        self.load_model()

    def process_images(self, job: Any) -> Processed:
        assert job.scripts.alwayson_scripts == []
        return super().process_images(job)

    def use_loras(self, names: list[str]) -> None:
        model = self.data.sd_model
        if model.current_lora_hash == str(names):
            return
        model.current_lora_hash = str(names)
        objects = model.forge_objects_original.shallow_copy()
        objects.unet = objects.unet.with_patches(names)
        clip = objects.clip
        objects.clip = Clip(clip.cond_stage_model, clip.patcher.with_patches(names))
        model.forge_objects_after_applying_lora = objects

    def patch(self, objects: Objects) -> None:
        for patcher in (objects.unet, objects.clip.patcher):
            patcher.patch_model()
            self.current.append(weakref.ref(patcher))


OLD_CLIP_G = "use_old_clip_g_load_and_ztsnr_application"


def tear_down(model: Any) -> None:
    """complete_model_teardown: whoever still holds the object holds nothing."""
    for name in list(vars(model)):
        setattr(model, name, None)
