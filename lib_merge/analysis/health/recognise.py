"""What a file is: its architecture and kin, or what else has such keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from lib_merge.analysis.health.job import FileValues, Span, whole
from lib_merge.arch import detect_layout
from lib_merge.checkpoint.header import Header
from lib_merge.core.blocks import (
    PLAIN,
    Architecture,
    Component,
    KeyInfos,
    KeyRole,
)
from lib_merge.core.layouts import Layout, find_stored
from lib_merge.core.naming import How
from lib_merge.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Recognised:
    """What a file's keys and shapes give away.

    Attributes:
        layout: None where no architecture fits.
        label: The architecture's name, or what else the file is.
        kin: What sets it apart from its architecture's usual models.
        infos: Its tensors under the architecture's names.
        problems: Sentences about what could not be recognised.
    """

    layout: Layout | None
    label: str
    kin: tuple[str, ...]
    infos: KeyInfos
    problems: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture | None:
        """The architecture, or None where none fits."""
        return self.layout.architecture if self.layout else None

    @property
    def is_lone(self) -> bool:
        """Whether the file is one component and nothing else."""
        return self.layout is not None and len(self.layout.components) == 1

    def role_of(self, key: str) -> KeyRole | None:
        """The role of a key in the architecture's names."""
        return self.architecture.role_of(key) if self.architecture else None

    def stored_role(self, key: str) -> KeyRole | None:
        """The role of a key as the file spells it."""
        return self.layout.role_of(key) if self.layout else None

    def relative(self, key: str) -> str | None:
        """A key's name within its component; equal in architectures that share it.

        Args:
            key: In the architecture's names.
        """
        role = self.role_of(key)
        if role is None or self.architecture is None:
            return None
        for names in self.architecture.names:
            if names.component is role.component and key.startswith(names.prefix):
                return key[len(names.prefix) :]
        return key

    def stored_prefix(self, component: Component) -> str:
        """What stands in front of a component's names in this file."""
        bindings = self.layout.bindings if self.layout else ()
        found = [b.place.prefix for b in bindings if b.names.component is component]
        return found[0] if found else ""

    def component_of(self, key: str) -> str | None:
        """The component of a key in the architecture's names."""
        role = self.role_of(key)
        return role.component.value if role else None

    def values(
        self, header: Header, key: str, *, must_be_finite: bool = False
    ) -> FileValues:
        """Where the file holds a tensor.

        Args:
            header: The file's.
            key: In the architecture's names.
            must_be_finite: Whether NaN or infinity among them is an error.
        """
        if self.layout is None or self.layout.is_canonical:
            return whole(header, key, must_be_finite=must_be_finite)
        found = stored_values(header, self.layout, self._canonical, key)
        return replace(found, must_be_finite=must_be_finite)

    @cached_property
    def _canonical(self) -> Layout:
        assert self.layout is not None
        return self.layout.as_canonical()


def stored_values(
    header: Header, layout: Layout, wanted: Layout, key: str
) -> FileValues:
    """Where a file holds a tensor that another layout of the same model names.

    Args:
        header: The file's.
        layout: As the file names its tensors.
        wanted: The layout whose key it is.
        key: One of its keys.

    Raises:
        CheckpointError: The file does not hold all of it.
    """
    stored = find_stored(wanted, key, layout)
    if stored is None:
        raise CheckpointError(
            f"{header.path} does not hold all of '{key}'; repair it first, or choose a "
            "whole file."
        )
    turned = None
    if stored.how is How.TRANSPOSED:
        rows, columns = header.infos[stored.runs[0].key].shape
        turned = (rows, columns)
    spans = tuple(Span(run.key, run.start, run.stop) for run in stored.runs)
    return FileValues(header, spans, turned)


def recognise(infos: KeyInfos, *, where: str) -> Recognised:
    """Find out what a file is.

    Args:
        infos: Every key with its declared tensor.
        where: The file, for messages.
    """
    other = _other_kind(infos)
    if other is not None:
        return Recognised(None, other, (), infos)
    try:
        layout = detect_layout(infos, where=where)
    except InputError as fault:
        return Recognised(None, "unknown", (), infos, (str(fault),))
    label = layout.architecture.label
    components = layout.components
    if len(components) == 1 and components[0] is not Component.UNET:
        label = f"{components[0].value} alone, as of {label}"
    return Recognised(layout, label, _kin(layout), layout.canonical)


def _kin(layout: Layout) -> tuple[str, ...]:
    kin = [] if layout.kind == PLAIN else [layout.kind]
    if "ztsnr" in layout.infos:
        kin.append("zero terminal SNR")
    if not layout.is_canonical and layout.naming != "single file":
        kin.append(f"{layout.naming} names")
    return tuple(kin)


def _other_kind(infos: KeyInfos) -> str | None:
    """What else users have in their folders, by its keys; None for models."""
    if any(key.startswith("control_model.") for key in infos):
        return "ControlNet"
    n_lora = sum(
        key.startswith(("lora_unet_", "lora_te", "lora_transformer_", "lycoris_"))
        or ".lora_A." in key
        or ".lora_up." in key
        for key in infos
    )
    # A model with a LoRA left in it is a model.
    if 2 * n_lora > len(infos):
        return "LoRA"
    if len(infos) <= 3 and {"string_to_param", "emb_params", "clip_g"} & set(infos):
        return "textual inversion"
    return None
