"""A fake A1111 1.10: one model object, loaded into in place, LoRA copies everywhere."""

from __future__ import annotations

import types
from typing import Any

import torch

from tests.support.fake_jobs import leaves, tree
from tests.support.fake_webui import FakeWebUi, read_checkpoint

LORA_STEP = 0.25


class FakeA1111(FakeWebUi):
    """Traps: lazy loading, token_embedding.wrapped, backups of every layer, reuse."""

    host_id = "a1111"

    def options(self) -> dict[str, Any]:
        return {"sd_checkpoints_limit": 1, "fp8_storage": "Disable"}

    def sd_models(self) -> dict[str, Any]:
        self.data = ModelData(self)
        self.opts.on_change["sd_model_checkpoint"] = self._on_option
        self.loaded_loras: list[str] = []
        return {
            "model_data": self.data,
            "reload_model_weights": self.reload_model_weights,
        }

    def more_modules(self) -> dict[str, types.ModuleType]:
        networks = types.ModuleType("networks")
        networks.__dict__.update(
            network_restore_weights_from_backup=restore_from_backup,
            network_reset_cached_weight=reset_cached,
        )
        launch = types.ModuleType("modules.launch_utils")
        launch.git_tag = lambda: "v1.10.1"  # type: ignore[attr-defined]
        return {"networks": networks, "modules.launch_utils": launch}

    def current_model(self) -> Any:
        return self.data.get_sd_model()

    def _on_option(self) -> None:
        with self.lock:
            self.reload_model_weights()

    def select(self) -> Any:
        infos = self.lists["aliases"]
        found = infos.get(self.opts.sd_model_checkpoint)
        return found or next(iter(self.lists["list"].values()))

    def load_model(self, info: Any) -> Any:
        tensors = read_checkpoint(info)
        self.loads.append(info.name)
        model = tree(tensors, torch.float32 if self.cmd_opts.no_half else torch.float16)
        model.sd_checkpoint_info = info  # type: ignore[assignment]
        hijack(model)
        self._store_fp8(model)
        self.data.set_sd_model(model)
        self.opts.data["sd_model_checkpoint"] = info.title
        return model

    def reload_model_weights(
        self, sd_model: Any = None, info: Any = None, forced_reload: bool = False
    ) -> Any:
        info = info or self.select()
        model = sd_model or self.data.sd_model
        if model is None:
            return self.load_model(info)
        same = model.sd_checkpoint_info.filename == info.filename
        if same and not forced_reload:
            return model
        if not same:
            known = [m for m in self.data.loaded_sd_models if _file(m) == info.filename]
            if known:
                # Whatever was written into it in the meantime is still there.
                self.data.set_sd_model(known[0])
                self.opts.data["sd_model_checkpoint"] = info.title
                return known[0]
            if self.opts.sd_checkpoints_limit > len(self.data.loaded_sd_models):
                return self.load_model(info)
        # Taken off before the file is read: if that fails, it stays off.
        undo_hijack(model)
        tensors = read_checkpoint(info)
        self.loads.append(info.name)
        # Into the same object and the same parameters.
        model.load_state_dict(tensors, strict=False)
        for _, leaf in leaves(model):
            reset_cached(leaf)
        hijack(model)
        model.sd_checkpoint_info = info
        self.opts.data["sd_model_checkpoint"] = info.title
        self.data.set_sd_model(model)
        return model

    def _store_fp8(self, model: torch.nn.Module) -> None:
        if self.opts.fp8_storage == "Disable":
            return
        for name, leaf in leaves(model):
            if name.startswith("model."):
                leaf.fp16_weight = leaf.weight.data.half()  # type: ignore[union-attr]
                leaf.to(torch.float8_e4m3fn)

    def before_picture(self, job: Any) -> None:
        self.reload_model_weights()

    def use_loras(self, names: list[str]) -> None:
        self.loaded_loras = names

    def parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.nn.Module]]:
        model = self.current_model()
        for name, leaf in leaves(model):
            self._apply(name, leaf)
        text = getattr(model, "cond_stage_model", None) or model.conditioner
        unet = model.model.diffusion_model
        # Without the hijack the prompt's emphasis and embeddings mean nothing.
        label = "text" if is_hijacked(model) else "plain"
        return {label: text}, {"unet": unet, "vae": model.first_stage_model}

    def _apply(self, name: str, leaf: Any) -> None:
        """network_apply_weights, called by the forward of every layer."""
        wanted = tuple(self.loaded_loras)
        if wanted and getattr(leaf, "network_weights_backup", None) is None:
            leaf.network_weights_backup = leaf.weight.detach().clone()
            bias = getattr(leaf, "bias", None)
            leaf.network_bias_backup = None if bias is None else bias.detach().clone()
        if getattr(leaf, "network_current_names", ()) != wanted:
            restore_from_backup(leaf)
            if wanted and ".to_q" in name:
                leaf.weight += LORA_STEP * len(wanted)
            leaf.network_current_names = wanted


class ModelData:
    """sd_models.model_data: asking for the model loads it."""

    def __init__(self, fake: FakeA1111) -> None:
        self._fake = fake
        self.sd_model: Any = None
        self.loaded_sd_models: list[Any] = []

    def get_sd_model(self) -> Any:
        return self.sd_model or self._fake.load_model(self._fake.select())

    def set_sd_model(self, model: Any) -> None:
        self.sd_model = model
        if model in self.loaded_sd_models:
            self.loaded_sd_models.remove(model)
        self.loaded_sd_models.insert(0, model)
        del self.loaded_sd_models[self._fake.opts.sd_checkpoints_limit :]


class EmbeddingsWithFixes(torch.nn.Module):
    """The hijack of a token embedding."""

    def __init__(self, wrapped: torch.nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped


class WithCustomWords(torch.nn.Module):
    """The hijack of a text encoder."""

    def __init__(self, wrapped: torch.nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped


def hijack(model: Any) -> None:
    """Wrap text encoders and their token embeddings."""
    for holder, name in _encoders(model):
        encoder = getattr(holder, name)
        for module in list(encoder.modules()):
            if "token_embedding" in module._modules:
                embedding = module._modules["token_embedding"]
                module._modules["token_embedding"] = EmbeddingsWithFixes(embedding)
        holder._modules[name] = WithCustomWords(encoder)


def undo_hijack(model: Any) -> None:
    """Take the wrappers out again."""
    for holder, name in _encoders(model):
        encoder = getattr(holder, name)
        if not isinstance(encoder, WithCustomWords):
            continue
        encoder = encoder.wrapped
        for module in list(encoder.modules()):
            if "token_embedding" in module._modules:
                module._modules["token_embedding"] = module.token_embedding.wrapped
        holder._modules[name] = encoder


def is_hijacked(model: Any) -> bool:
    """Whether the text encoders are wrapped."""
    found = _encoders(model)
    return all(isinstance(getattr(h, n), WithCustomWords) for h, n in found)


def _encoders(model: Any) -> list[tuple[Any, str]]:
    if hasattr(model, "conditioner"):
        embedders = model.conditioner.embedders
        return [(embedders, name) for name in list(embedders._modules)]
    return [(model, "cond_stage_model")]


def restore_from_backup(leaf: Any) -> None:
    """network_restore_weights_from_backup."""
    if getattr(leaf, "network_weights_backup", None) is None:
        return
    leaf.weight.copy_(leaf.network_weights_backup)
    if leaf.network_bias_backup is not None:
        leaf.bias.copy_(leaf.network_bias_backup)


def reset_cached(leaf: Any) -> None:
    """network_reset_cached_weight."""
    leaf.network_current_names = ()
    leaf.network_weights_backup = leaf.network_bias_backup = None


def _file(model: Any) -> str:
    return str(model.sd_checkpoint_info.filename)
