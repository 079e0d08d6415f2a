"""A fake Forge: no model until the first job, inference tensors, new parameters."""

from __future__ import annotations

import dataclasses
import types
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
from tests.support.fake_jobs import Processed, ScheduledProcessing, tree, under
from tests.support.fake_webui import read_checkpoint


@dataclasses.dataclass(repr=False)
class ForgeProcessing(ScheduledProcessing):
    """Forge's own fields: the second pass has a CFG of its own."""

    hr_cfg: float = 1.0
    hr_additional_modules: list[str] | None = None


class FakeInitialModel:
    """What stands for a model before the first job."""

    cond_stage_model = None


class LoraLoader:
    """Patches by putting a new Parameter in; unpatches by putting the old one back."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.backup: dict[str, torch.nn.Parameter] = {}
        self.loaded = "[]"

    @torch.inference_mode()
    def refresh(self, patches: list[str]) -> None:
        if str(patches) == self.loaded:
            return
        for key, parameter in self.backup.items():
            owner, name = owner_of(self.model, key)
            owner._parameters[name] = parameter
        self.backup = {}
        for key in lora_keys(self.model) if patches else ():
            owner, name = owner_of(self.model, key)
            old = owner._parameters[name]
            assert old is not None
            self.backup[key] = old
            new = old + LORA_STEP * len(patches)
            owner._parameters[name] = torch.nn.Parameter(new, requires_grad=False)
        self.loaded = str(patches)


class ModelPatcher:
    """Clones share the model and its one LoraLoader."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.patches: list[str] = []
        if not hasattr(model, "lora_loader"):
            model.lora_loader = LoraLoader(model)

    def with_patches(self, names: list[str]) -> ModelPatcher:
        clone = ModelPatcher(self.model)
        clone.patches = list(names)
        return clone

    def refresh_loras(self) -> None:
        self.model.lora_loader.refresh(self.patches)


class FakeForge(FakeForges):
    """Traps: FakeInitialModel, hash of parameters, embeddings widened on first use."""

    host_id = "forge"
    processing_type = ForgeProcessing

    def __init__(self, folder: Any) -> None:
        self.dtype = torch.float32
        self.text_dtype = torch.float16
        self.data = types.SimpleNamespace(
            sd_model=FakeInitialModel(), forge_loading_parameters={}, forge_hash=""
        )
        super().__init__(folder)

    def options(self) -> dict[str, Any]:
        return {"forge_additional_modules": []}

    def sd_models(self) -> dict[str, Any]:
        return {
            "model_data": self.data,
            "forge_model_reload": self.forge_model_reload,
            "reload_model_weights": lambda *_, **__: None,
            "load_model": lambda *_, **__: None,
        }

    def more_modules(self) -> dict[str, types.ModuleType]:
        entry = types.ModuleType("modules_forge.main_entry")
        entry.refresh_model_loading_parameters = (  # type: ignore[attr-defined]
            self.refresh_model_loading_parameters
        )
        version = types.ModuleType("modules_forge.forge_version")
        version.version = "f2.0.1"  # type: ignore[attr-defined]
        return {
            "modules_forge": package("modules_forge"),
            "modules_forge.main_thread": self.main_thread.module(),
            "modules_forge.main_entry": entry,
            "modules_forge.forge_version": version,
        }

    def current_model(self) -> Any:
        return self.data.sd_model

    def refresh_model_loading_parameters(self) -> None:
        chosen = self.opts.sd_model_checkpoint
        info = self.lists["aliases"].get(chosen)
        self.data.forge_loading_parameters = {
            # An unknown title silently becomes the first checkpoint.
            "checkpoint_info": info or next(iter(self.lists["list"].values())),
            "additional_modules": self.opts.forge_additional_modules,
        }

    @torch.inference_mode()
    def forge_model_reload(self) -> tuple[Any, bool]:
        current = str(self.data.forge_loading_parameters)
        if self.data.forge_hash == current:
            return self.data.sd_model, False
        self.data.sd_model = None
        info = self.data.forge_loading_parameters["checkpoint_info"]
        try:
            tensors = read_checkpoint(info)
        except Exception:
            raise ValueError("Failed to recognize model type!") from None
        self.loads.append(info.name)
        self.data.sd_model = self._build(tensors)
        self.data.sd_model.sd_checkpoint_info = info
        self.data.forge_hash = current
        return self.data.sd_model, True

    def _build(self, tensors: dict[str, torch.Tensor]) -> Any:
        kmodel = torch.nn.Module()
        kmodel.diffusion_model = tree(
            under(tensors, "model.diffusion_model."), self.dtype
        )
        clip = torch.nn.Module()
        for name, encoder in text_encoders(tensors).items():
            holder = torch.nn.Module()
            holder.transformer = tree(encoder, self.text_dtype)
            holder.logit_scale = torch.nn.Parameter(torch.tensor(4.6055))
            clip.add_module(name, holder)
        vae = types.SimpleNamespace(
            first_stage_model=tree(under(tensors, "first_stage_model."), self.dtype)
        )
        model = types.SimpleNamespace()
        set_objects(
            model, Objects(ModelPatcher(kmodel), Clip(clip, ModelPatcher(clip)), vae)
        )
        return model

    def before_picture(self, job: Any) -> None:
        if not self.data.forge_loading_parameters:
            self.refresh_model_loading_parameters()
        job.sd_model, _ = self.forge_model_reload()

    def process_images(self, job: Any) -> Processed:
        if job.enable_hr and "Use same choices" not in job.hr_additional_modules:
            raise AssertionError("the fake has no other modules")
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
        objects.unet.refresh_loras()
        objects.clip.patcher.refresh_loras()
        for name, module in objects.clip.cond_stage_model.named_modules():
            if name.endswith(".embeddings"):
                # Forge widens the embeddings at the first prompt, not while loading.
                with torch.inference_mode():
                    module.to(torch.float32)
