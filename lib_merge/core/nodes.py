"""What a recipe is made of: models, merges, selections, and the merges' settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from lib_merge.core.blocks import BlockId, Component

DEFAULT_COMPONENTS = (
    Component.UNET,
    Component.CLIP_L,
    Component.CLIP_G,
    Component.CLIP_H,
    Component.T5,
    Component.BERT,
)
"""What a merge blends unless told otherwise: everything but the VAE."""


@dataclass(frozen=True)
class ModelNode:
    """A model file, by place and by hash.

    Attributes:
        path: As given by the user; a bare file name in a saved checkpoint's metadata.
        sha256: Of the whole file, 64 hex digits, or None while it is not known.
    """

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Rule:
    """A value for the keys that match everything the rule names.

    Attributes:
        value: The parameter's value there.
        blocks: Block ids; empty means any block.
        pattern: A substring or regular expression searched in the key; "" means any.
    """

    value: float
    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""

    def matches(self, key: str, block: BlockId) -> bool:
        """Whether the rule speaks of this key."""
        if self.blocks and block not in self.blocks:
            return False
        return not self.pattern or re.search(self.pattern, key) is not None


@dataclass(frozen=True)
class Setting:
    """A parameter over all keys: a default, a value per block, rules on top.

    The last matching rule wins, then the block's value, then the default.

    Attributes:
        value: The default.
        blocks: (block id, value) pairs.
        rules: The field's "elemental" merge, in order.
    """

    value: float
    blocks: tuple[tuple[BlockId, float], ...] = ()
    rules: tuple[Rule, ...] = ()

    def value_for(self, key: str, block: BlockId) -> float:
        """The parameter's value for one key."""
        for rule in reversed(self.rules):
            if rule.matches(key, block):
                return rule.value
        return dict(self.blocks).get(block, self.value)


@dataclass(frozen=True)
class MergeNode:
    """One merge: a method over earlier nodes.

    Attributes:
        method: The method's id.
        inputs: Indices of earlier nodes, in the method's order (base, a, b, c, pool).
        params: (name, setting) pairs; what is not named keeps its default. A per-model
            parameter NAME may also be set as NAME@1, NAME@2 ... by place in the pool.
        components: What is blended; every other key is taken from the first input.
    """

    method: str
    inputs: tuple[int, ...]
    params: tuple[tuple[str, Setting], ...] = ()
    components: tuple[Component, ...] = DEFAULT_COMPONENTS


@dataclass(frozen=True)
class LoraNode:
    """An earlier node with a LoRA baked in: base + strength * the LoRA's change.

    Attributes:
        path: The LoRA file, as a `ModelNode` has it.
        base: Index of the earlier node that it changes.
        strength: How much of the change is added; by block and key like any setting
            (BASE or a text encoder's name sets the text encoders').
        sha256: Of the whole file, 64 hex digits, or None while it is not known.
    """

    path: str
    base: int
    strength: Setting = Setting(1.0)
    sha256: str | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """The earlier nodes that it refers to."""
        return (self.base,)


@dataclass(frozen=True)
class Pick:
    """Which keys a `SelectNode` takes from one of its inputs.

    Attributes:
        input: Position among the node's inputs.
        blocks: Block ids, ranges, BASE or component names; empty means any.
        pattern: A substring or regular expression searched in the key; "" means any.
    """

    input: int
    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""


@dataclass(frozen=True)
class SelectNode:
    """Takes every key whole from one of some earlier nodes; nothing is computed.

    So one method can serve the UNet and another the text encoders, and any component
    can come from a model of its own.

    Attributes:
        inputs: Indices of earlier nodes; the first has every key that no pick names.
        picks: In order; the last that matches a key wins.
    """

    inputs: tuple[int, ...]
    picks: tuple[Pick, ...]


Node: TypeAlias = "ModelNode | MergeNode | SelectNode | LoraNode"
FileNode: TypeAlias = "ModelNode | LoraNode"
"""A node that stands for a file."""


class NonFinite(str, Enum):
    """What happens where a model itself holds NaN or infinity."""

    STOP = "stop"
    """The merge ends with an error that names file, key and count."""

    LEAVE_OUT = "leave_out"
    """A pool goes on without that model for that key; elsewhere it is an error."""

    KEEP = "keep"
    """They go into the result, with a warning."""
