"""What the diffusion transformers have in common: numbered blocks and loose tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lib_merge.core.blocks import Block, BlockId, Component, KeyRole, Treatment
from lib_merge.core.naming import ComponentNames

SCHEDULE_BLOCK = Block(
    BlockId("SCHEDULE"), Component.SCHEDULE, "noise schedule constants, copied"
)
VAE_BLOCK = Block(BlockId("VAE"), Component.VAE, "image encoder and decoder")
_TITLES = {
    Component.CLIP_L: "text encoder CLIP ViT-L/14",
    Component.CLIP_G: "text encoder OpenCLIP ViT-bigG/14",
    Component.T5: "text encoder T5",
    Component.BERT: "text encoder BERT",
}


@dataclass(frozen=True)
class Stack:
    """A row of equal blocks.

    Attributes:
        words: First words of its keys, up to the number: "joint_blocks.".
        label: Of its block ids: "JOINT" gives JOINT00, JOINT01, ...
        count: How many there are.
        title: What one is.
    """

    words: str
    label: str
    count: int
    title: str

    def blocks(self) -> Sequence[Block]:
        """All of them, in order."""
        return [
            Block(self.id(i), Component.UNET, self.title) for i in range(self.count)
        ]

    def id(self, index: int) -> BlockId:
        """The id of one of them."""
        return BlockId(f"{self.label}{index:02d}")


@dataclass(frozen=True)
class Loose:
    """Tensors outside the rows that make a block of their own.

    Attributes:
        id: Of the block.
        title: What it is.
        words: First words of its keys, any of them.
    """

    id: str
    title: str
    words: tuple[str, ...]

    def block(self) -> Block:
        """The block."""
        return Block(BlockId(self.id), Component.UNET, self.title)


@dataclass(frozen=True)
class Dit:
    """A diffusion transformer's block map.

    Attributes:
        prefix: Of its canonical keys.
        first: Loose blocks ahead of the rows.
        stacks: The rows.
        last: Loose blocks behind them.
        encoders: Its text encoders.
        vae: Its autoencoder.
        copied: First words of keys that are constants.
    """

    prefix: str
    first: tuple[Loose, ...]
    stacks: tuple[Stack, ...]
    last: tuple[Loose, ...]
    encoders: tuple[ComponentNames, ...]
    vae: ComponentNames
    copied: tuple[str, ...] = ()

    def blocks(self) -> tuple[Block, ...]:
        """All blocks in the order of the forward pass."""
        texts = [names.component for names in self.encoders]
        found = [Block(BlockId(c.name), c, _TITLES[c]) for c in texts]
        found += [loose.block() for loose in self.first]
        found += [block for stack in self.stacks for block in stack.blocks()]
        found += [loose.block() for loose in self.last]
        return (*found, VAE_BLOCK, SCHEDULE_BLOCK)

    def role(self) -> Callable[[str], KeyRole | None]:
        """The function that gives a key its role."""
        parts: Mapping[str, Component] = {
            names.prefix: names.component for names in (*self.encoders, self.vae)
        }

        def role_of(key: str) -> KeyRole | None:
            if key.startswith(self.copied):
                id_ = SCHEDULE_BLOCK.id
                return KeyRole(id_, Component.SCHEDULE, Treatment.COPY)
            for prefix, component in parts.items():
                if key.startswith(prefix):
                    return component_role(key, component)
            return self._own_role(key)

        return role_of

    def _own_role(self, key: str) -> KeyRole | None:
        if not key.startswith(self.prefix):
            return None
        rest = key[len(self.prefix) :]
        for stack in self.stacks:
            if rest.startswith(stack.words):
                number = rest[len(stack.words) :].partition(".")[0]
                if number.isdecimal() and int(number) < stack.count:
                    return KeyRole(stack.id(int(number)), Component.UNET)
                return None
        for loose in (*self.first, *self.last):
            if rest.startswith(loose.words):
                return KeyRole(BlockId(loose.id), Component.UNET)
        return None


def component_role(key: str, component: Component) -> KeyRole:
    """The role of a key of a text encoder or VAE; position ids are integers."""
    treatment = Treatment.MERGE
    if key.endswith("position_ids"):
        treatment = Treatment.COPY
    return KeyRole(BlockId(component.name), component, treatment)


def is_spare_text(key: str) -> bool:
    """Whether a whole model may lack a key: what no image is made with."""
    return key.endswith(("logit_scale", "text_projection.weight", "text_projection"))
