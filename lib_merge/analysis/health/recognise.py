"""What a file is: its architecture and kin, or what else has such keys."""

from __future__ import annotations

from dataclasses import dataclass

from lib_merge.arch import detect_architecture
from lib_merge.core.blocks import Architecture, KeyInfos, KeyRole
from lib_merge.errors import InputError

_OLD = "cond_stage_model.transformer."
_LONG = _OLD + "text_model."
_PREFIXES = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.embedders.0.",
    "conditioner.embedders.1.",
)


@dataclass(frozen=True)
class Recognised:
    """What a file's keys and shapes give away.

    Attributes:
        architecture: None where no architecture fits.
        label: Its name, or what else the file is.
        kin: What sets it apart from its architecture's usual models.
        infos: Its tensors under the architecture's names.
        problems: Sentences about what could not be recognised.
    """

    architecture: Architecture | None
    label: str
    kin: tuple[str, ...]
    infos: KeyInfos
    problems: tuple[str, ...] = ()

    def role_of(self, key: str) -> KeyRole | None:
        """The role of a key."""
        return self.architecture.role_of(key) if self.architecture else None

    def canonical(self, key: str) -> str:
        """What the architecture calls one of the file's keys."""
        if key.startswith(_OLD) and not key.startswith(_LONG):
            return _LONG + key[len(_OLD) :]
        return key

    def relative(self, key: str) -> str | None:
        """A key's name within its component; equal in architectures that share it."""
        name = self.canonical(key)
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                return name[len(prefix) :]
        return None

    def component_of(self, key: str) -> str | None:
        """The component of a key."""
        role = self.role_of(key)
        return role.component.value if role else None


def recognise(infos: KeyInfos, *, where: str) -> Recognised:
    """Find out what a file is.

    Args:
        infos: Every key with its declared tensor.
        where: The file, for messages.
    """
    try:
        architecture = detect_architecture(infos, where=where)
    except InputError as fault:
        other = _other_kind(infos)
        problems = () if other else (str(fault),)
        return Recognised(None, other or "unknown", (), infos, problems)
    return Recognised(architecture, architecture.label, _kin(infos), infos)


_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_CHANNELS = {9: "inpainting", 8: "instructed (8 channels)", 5: "depth"}


def _kin(infos: KeyInfos) -> tuple[str, ...]:
    kin = []
    conv_in = infos.get(_CONV_IN)
    if conv_in is not None and len(conv_in.shape) == 4:
        named = _CHANNELS.get(conv_in.shape[1])
        kin += [named] if named else []
    if "v_pred" in infos:
        kin.append("v-prediction")
    if "ztsnr" in infos:
        kin.append("zero terminal SNR")
    return tuple(kin)


def _other_kind(infos: KeyInfos) -> str | None:
    """What else users have in their folders, by its keys."""
    keys = list(infos)
    if any(key.startswith(("lora_unet_", "lora_te", "lycoris_")) for key in keys):
        return "LoRA"
    if any(".lora_A." in key or ".lora_up." in key for key in keys):
        return "LoRA"
    is_vae = "decoder.conv_in.weight" in infos and "encoder.conv_in.weight" in infos
    if is_vae:
        return "VAE alone"
    if any(key.startswith("control_model.") for key in keys):
        return "ControlNet"
    if set(keys) & {"string_to_param", "emb_params", "clip_l", "clip_g"}:
        return "textual inversion"
    if any(key.startswith("text_model.encoder.") for key in keys):
        return "text encoder alone"
    return None
