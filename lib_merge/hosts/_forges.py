"""What Forge and reForge share: a model in three patchers, text encoders split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.hosts._clip_names import UNET, VAE, is_picture_key, text_key
from lib_merge.hosts._live import Slot, collect, named_tensors, part_slot
from lib_merge.hosts._loader import WebUiLoader, whole_slots

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ForgesLoader(WebUiLoader):
    """Loader port of the Forge family, but for loading and unpatching."""

    def _unet(self, model: Any) -> Any:
        return model.forge_objects.unet.model.diffusion_model

    def _vae(self, model: Any) -> Any:
        return model.forge_objects.vae.first_stage_model

    def _tensors(self, model: Any) -> Mapping[str, Sequence[Tensor]]:
        objects = model.forge_objects
        # Looked up anew at every edit: LoRA patching replaces the parameters.
        named = collect(named_tensors(self._unet(model), UNET))
        named.update(collect(named_tensors(self._vae(model), VAE)))
        named.update(collect(named_tensors(objects.clip.cond_stage_model)))
        return named

    def _slots(
        self, model: Any, tensors: Mapping[str, Sequence[Tensor]], key: str
    ) -> tuple[Slot, ...]:
        if not self._is_used(model, key):
            return ()
        text = text_key(key)
        if text is None:
            return whole_slots(tensors, key)
        for encoder in text.encoders:
            slots = [
                slot
                for part in text.parts
                for slot in self._part_slots(tensors, encoder, part)
            ]
            if slots:
                return tuple(slots)
        return ()

    def _part_slots(
        self, tensors: Mapping[str, Sequence[Tensor]], encoder: str, part: Any
    ) -> tuple[Slot, ...]:
        """The slots of one part of a text-encoder tensor."""
        name = f"{encoder}.transformer.{part.name}"
        via = self._text_via(tensors, encoder, part.name)
        return tuple(part_slot(part, t, via) for t in tensors.get(name, ()))

    def _text_via(
        self, tensors: Mapping[str, Sequence[Tensor]], encoder: str, name: str
    ) -> torch.dtype | None:
        """A type that the host rounds a text tensor through on its way in."""
        return None

    def _is_used(self, model: Any, key: str) -> bool:
        if not is_picture_key(key):
            return False
        foreign = self._foreign_parts(model)
        text = text_key(key)
        if text is None:
            return not (key.startswith(VAE) and "vae" in foreign)
        return not foreign.issuperset(text.encoders)

    def _foreign_parts(self, model: Any) -> frozenset[str]:
        """Parts that come from other files that the user chose.

        Returns:
            Some of "vae", "clip_l", "clip_g", "clip_h".
        """
        return frozenset()

    @staticmethod
    def _drop_patched(model: Any) -> None:
        """Point the model at its unpatched objects, as a prompt without LoRA would."""
        model.forge_objects = model.forge_objects_original.shallow_copy()
        model.forge_objects_after_applying_lora = (
            model.forge_objects_original.shallow_copy()
        )
        model.current_lora_hash = str([])
