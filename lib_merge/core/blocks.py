"""What an architecture is to a merger: ordered blocks, components, a role per key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NewType

from lib_merge.core.dtypes import DType

if TYPE_CHECKING:
    from lib_merge.core.naming import ComponentNames
    from lib_merge.core.recognition import Names, View

BlockId = NewType("BlockId", str)
"""A block's permanent name: IN00, M00, OUT11, OUT, TIME_EMBED, CLIP_L, VAE ..."""

BASE = BlockId("BASE")
"""Alias in settings: every text-encoder block (the field's base_alpha)."""


class Component(str, Enum):
    """The part of a checkpoint that a key belongs to.

    UNET is what denoises, a diffusion transformer too.
    """

    UNET = "unet"
    CLIP_L = "clip_l"
    CLIP_G = "clip_g"
    CLIP_H = "clip_h"
    T5 = "t5"
    BERT = "bert"
    VAE = "vae"
    SCHEDULE = "schedule"

    @property
    def is_text_encoder(self) -> bool:
        """Whether base_alpha speaks of it."""
        return self not in (Component.UNET, Component.VAE, Component.SCHEDULE)


PLAIN = "plain"
"""The kind of a model that is nothing special within its architecture."""


class Treatment(Enum):
    """What a merge does with a key."""

    MERGE = "merge"
    COPY = "copy"
    """Taken from the first model as it is: schedule constants, position ids."""
    DROP_UNLESS_ASKED = "ema"
    """EMA shadow weights: left out of the output unless `keep_ema`."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape and element type of one stored tensor, as its header declares them."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        """How many numbers it holds (1 for a scalar, 0 for an empty tensor)."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        return self.n_elements * self.dtype.size


KeyInfos = Mapping[str, TensorInfo]
"""Every key of a checkpoint with its declared tensor: what detection may look at."""


@dataclass(frozen=True)
class KeyRole:
    """Where a key belongs and what a merge does with it."""

    block: BlockId
    component: Component
    treatment: Treatment = Treatment.MERGE


@dataclass(frozen=True)
class Block:
    """One block of an architecture, in reading order.

    Attributes:
        id: Its permanent name.
        component: The component that owns it.
        title: What it is, in a few words ("cross-attention down, 320 channels").
    """

    id: BlockId
    component: Component
    title: str


@dataclass(frozen=True)
class Architecture:
    """Everything the merger knows of one architecture.

    Attributes:
        id: Permanent id, e.g. "sd1".
        label: What people call it.
        blocks: In the order of the forward pass; VAE and schedule last.
        role_of: The role of a canonical key, or None for a key it does not know.
        names: How files name each component; what denoises comes first.
        is_mine: Whether what denoises is of this architecture.
        is_rest: Whether a file without it is: the text encoders and VAE tell.
        kind_of: What a model is within the architecture, by its canonical tensors.
        is_spare: Whether a whole model may lack a canonical key; then a merge takes
            the first model's.
        before: Ids that must be asked after this one (overlapping detections).
        latent: Width and height of the default input, in latent pixels.
        latent_channels: Its channels.
    """

    id: str
    label: str
    blocks: tuple[Block, ...]
    role_of: Callable[[str], KeyRole | None]
    names: tuple[ComponentNames, ...]
    is_mine: Callable[[View], bool]
    is_rest: Callable[[Names], bool]
    kind_of: Callable[[KeyInfos], str] = lambda infos: PLAIN
    is_spare: Callable[[str], bool] = lambda key: False
    before: tuple[str, ...] = ()
    latent: int = 128
    latent_channels: int = 4

    def block_ids(self) -> tuple[BlockId, ...]:
        """All block ids, in order."""
        return tuple(block.id for block in self.blocks)

    def weighted_blocks(self) -> tuple[Block, ...]:
        """Blocks that a merge weight acts on by default: UNet and text encoders."""
        skipped = (Component.VAE, Component.SCHEDULE)
        return tuple(b for b in self.blocks if b.component not in skipped)

    def expand(self, name: str) -> tuple[BlockId, ...]:
        """Block ids that a name stands for: an id, BASE, a component, or IN04-IN07.

        Returns:
            The ids in order, or an empty tuple for an unknown name.
        """
        ids = self.block_ids()
        upper = name.strip().upper().replace("MID", "M") if name else ""
        if upper == BASE:
            text = [b.id for b in self.blocks if b.component.is_text_encoder]
            return tuple(text)
        if upper in ids:
            return (BlockId(upper),)
        owned = [b.id for b in self.blocks if b.component.value.upper() == upper]
        if owned:
            return tuple(owned)
        first, dash, last = (part.strip() for part in upper.partition("-"))
        if dash and first in ids and last in ids:
            return _between(ids, BlockId(first), BlockId(last))
        return ()


def _between(
    ids: Sequence[BlockId], first: BlockId, last: BlockId
) -> tuple[BlockId, ...]:
    start, stop = ids.index(first), ids.index(last)
    return tuple(ids[start : stop + 1]) if start <= stop else ()
