"""What the fake Forge and reForge share: split text encoders and a main thread."""

from __future__ import annotations

import queue
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tests.support.fake_jobs import under
from tests.support.fake_webui import FakeWebUi

LORA_STEP = 0.25

_RENAMED = (
    ("transformer.resblocks.", "text_model.encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
_TOP = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def text_encoders(
    tensors: Mapping[str, torch.Tensor],
) -> dict[str, dict[str, torch.Tensor]]:
    """The text encoders of a file as Transformers names them, by encoder.

    Written apart from the adapter's own table, on whole tensors: the two must agree.
    """
    found = {}
    for prefix in ("cond_stage_model.", "conditioner.embedders.0."):
        clip_l = under(tensors, f"{prefix}transformer.")
        if clip_l:
            found["clip_l"] = clip_l
    clip_h = under(tensors, "cond_stage_model.model.")
    if clip_h:
        found["clip_h"] = split_openclip(clip_h)
    clip_g = under(tensors, "conditioner.embedders.1.model.")
    if clip_g:
        found["clip_g"] = split_openclip(clip_g)
    for encoder in found.values():
        encoder.pop("text_model.embeddings.position_ids", None)
        encoder.pop("logit_scale", None)
    return found


def split_openclip(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An OpenCLIP text model as Transformers splits it."""
    out: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if key in _TOP:
            out[_TOP[key]] = tensor
        elif key == "text_projection":
            out["text_projection.weight"] = tensor.T.contiguous()
        elif "attn.in_proj_" in key:
            base, kind = key.split("attn.in_proj_")
            base = base.replace("transformer.resblocks.", "text_model.encoder.layers.")
            for letter, share in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{base}self_attn.{letter}_proj.{kind}"] = share
        else:
            name = key
            for old, new in _RENAMED:
                name = name.replace(old, new)
            out[name] = tensor
    return out


class MainThread:
    """modules_forge.main_thread: swallows exceptions and answers None."""

    def __init__(self) -> None:
        self._tasks: queue.Queue[tuple[Callable[[], Any], list[Any], threading.Event]]
        self._tasks = queue.Queue()
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        self.last_exception: Exception | None = None

    def _loop(self) -> None:
        while True:
            job, results, is_done = self._tasks.get()
            try:
                results.append(job())
            except Exception as fault:
                self.last_exception = fault
            is_done.set()

    def run_and_wait_result(self, job: Callable[[], Any]) -> Any:
        assert threading.current_thread() is not self.thread, "deadlock: nested task"
        results: list[Any] = []
        is_done = threading.Event()
        self._tasks.put((job, results, is_done))
        assert is_done.wait(30)
        return results[0] if results else None

    def module(self) -> types.ModuleType:
        """As `from modules_forge import main_thread` finds it."""
        found = types.ModuleType("modules_forge.main_thread")
        found.run_and_wait_result = (  # type: ignore[attr-defined]
            self.run_and_wait_result
        )
        return found


class Objects:
    """ForgeObjects: three patchers."""

    def __init__(self, unet: Any, clip: Any, vae: Any) -> None:
        self.unet, self.clip, self.vae = unet, clip, vae

    def shallow_copy(self) -> Objects:
        return Objects(self.unet, self.clip, self.vae)


class Clip:
    """A text encoder with its patcher."""

    def __init__(self, cond_stage_model: torch.nn.Module, patcher: Any) -> None:
        self.cond_stage_model, self.patcher = cond_stage_model, patcher


def package(name: str) -> types.ModuleType:
    """An empty package."""
    found = types.ModuleType(name)
    found.__path__ = []
    return found


def set_objects(model: Any, objects: Objects) -> None:
    """What every Forge sets on a model that it has just loaded."""
    model.forge_objects = objects
    model.forge_objects_original = objects.shallow_copy()
    model.forge_objects_after_applying_lora = objects.shallow_copy()
    model.current_lora_hash = str([])


def lora_keys(module: torch.nn.Module) -> list[str]:
    """Parameters that the fake LoRAs touch: the patched keys only."""
    names = [name for name, _ in module.named_parameters()]
    return [name for name in names if "to_q.weight" in name or "q_proj.weight" in name]


def owner_of(module: torch.nn.Module, key: str) -> tuple[torch.nn.Module, str]:
    """The module that holds a parameter, and the parameter's own name."""
    path, _, name = key.rpartition(".")
    return module.get_submodule(path), name


class FakeForges(FakeWebUi):
    """Parts of a picture on either Forge."""

    def __init__(self, folder: Any) -> None:
        self.main_thread = MainThread()
        super().__init__(folder)

    def parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.nn.Module]]:
        model = self.current_model()
        model.forge_objects = model.forge_objects_after_applying_lora.shallow_copy()
        objects = model.forge_objects
        self.patch(objects)
        unet = objects.unet.model.diffusion_model
        text = {"text": objects.clip.cond_stage_model}
        return text, {"unet": unet, "vae": objects.vae.first_stage_model}

    def patch(self, objects: Objects) -> None:
        """Apply the patchers' LoRAs before sampling."""
        raise NotImplementedError
