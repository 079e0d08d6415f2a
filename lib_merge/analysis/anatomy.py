"""What every block of a model is made of, read off its keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_merge.analysis.health.expected import expected_layout
from lib_merge.arch import architectures, detect_layout
from lib_merge.checkpoint.header import read_header
from lib_merge.core.blocks import (
    Architecture,
    Block,
    BlockId,
    Component,
    TensorInfo,
    Treatment,
)
from lib_merge.errors import InputError

RESNET = "resnet"
ATTENTION = "attention"
JOINT = "joint"
SINGLE = "single"
DOWN = "down"
UP = "up"
LOOSE = "loose"
OTHER = "other"

_UNET_PART = re.compile(
    r"model\.diffusion_model\.(input_blocks|middle_block|output_blocks)\."
)
_LAYER = re.compile(r"\.transformer_blocks\.(\d+)\.")
_PATCH = 2
"""Latent pixels along a side of a patch: the same in all transformers known here."""

_NUMBERED = re.compile(r"^[A-Z]+\d\d$")


def count(number: int) -> str:
    """A count for a reader: 859,520,964 as 860 M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


@dataclass(frozen=True)
class Part:
    """One block of a model.

    Attributes:
        block: Its id, component and title.
        kind: resnet, attention, joint, single, down, up, loose (tensors that belong to
            no numbered block) or other (a text encoder, the VAE).
        words: What it is, in a few words: "resnet, 10-layer transformer, up".
        n_tensors: Native count: every stored tensor once.
        n_params: Their values; schedule constants and position ids are none.
        n_channels: Width of what leaves it, or 0 where that says nothing.
        side: Width and height of what leaves it, in latent pixels (or patches) at the
            default input, or 0 where it has none.
    """

    block: Block
    kind: str
    words: str
    n_tensors: int
    n_params: int
    n_channels: int = 0
    side: int = 0

    @property
    def facts(self) -> str:
        """Its sizes in a line: "36 tensors, 4.8 M parameters, 320 ch, 64 x 64"."""
        facts = [f"{self.n_tensors} tensor" + "s" * (self.n_tensors != 1)]
        if self.n_params:
            facts.append(f"{count(self.n_params)} parameters")
        if self.n_channels:
            facts.append(f"{self.n_channels} ch")
        if self.side:
            facts.append(f"{self.side} x {self.side}")
        return ", ".join(facts)

    @property
    def title(self) -> str:
        """What it is and its exact counts, for under the pointer."""
        return (
            f"{self.block.id}: {self.words}; {self.n_tensors} tensors, "
            f"{self.n_params:,} parameters"
        )


@dataclass(frozen=True)
class Anatomy:
    """All blocks of a model.

    Attributes:
        label: What people call the architecture.
        parts: In the order of the forward pass; blocks without tensors are left out.
        latent: Width and height of the default input in latent pixels.
        latent_channels: Its channels.
    """

    label: str
    parts: tuple[Part, ...]
    latent: int
    latent_channels: int

    def of(self, *components: Component) -> Iterator[Part]:
        """The parts of some components."""
        return (part for part in self.parts if part.block.component in components)

    @property
    def n_numbered(self) -> int:
        """Blocks of what denoises that carry a number: IN04, M00, JOINT07 ..."""
        return sum(part.kind != LOOSE for part in self.of(Component.UNET))

    @property
    def n_tensors(self) -> int:
        """Tensors of what denoises."""
        return sum(part.n_tensors for part in self.of(Component.UNET))

    @property
    def n_params(self) -> int:
        """Values of what denoises."""
        return sum(part.n_params for part in self.of(Component.UNET))


@dataclass
class _Pile:
    """The tensors of one block, while they are collected."""

    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    n_params: int = 0

    def has(self, *endings: str) -> bool:
        """Whether a key has one of these in it."""
        return any(ending in key for key in self.tensors for ending in endings)


def anatomy_of(
    architecture: Architecture, tensors: Mapping[str, TensorInfo]
) -> Anatomy:
    """Take a model apart.

    Args:
        architecture: What it is.
        tensors: Its tensors by canonical key; EMA shadow weights are passed over.
    """
    piles: dict[BlockId, _Pile] = {block.id: _Pile() for block in architecture.blocks}
    for key, info in tensors.items():
        role = architecture.role_of(key)
        if role is None or role.treatment is Treatment.DROP_UNLESS_ASKED:
            continue
        pile = piles[role.block]
        pile.tensors[key] = info
        # SD3's table of places is computed, not learned: no parameters, as diffusers
        # counts them.
        if role.treatment is Treatment.MERGE and not key.endswith(".pos_embed"):
            pile.n_params += info.n_elements
    sides = _sides(piles, architecture.latent)
    parts = [
        _part(block, piles[block.id], sides.get(block.id, 0))
        for block in architecture.blocks
        if piles[block.id].tensors
    ]
    return Anatomy(
        architecture.label,
        tuple(parts),
        architecture.latent,
        architecture.latent_channels,
    )


def anatomy_of_arch(arch_id: str) -> Anatomy:
    """A whole model of an architecture, from the table of its keys.

    Raises:
        UnknownIdError: There is no such architecture.
        InputError: It has no table.
    """
    architecture = architectures().get(arch_id)
    layout = expected_layout(arch_id)
    if layout is None:
        raise InputError(
            f"The keys of {architecture.label} are not listed here, so it is drawn "
            "from a checkpoint only; give a file of it."
        )
    tensors = {key: expected.info for key, expected in layout.items()}
    return anatomy_of(architecture, tensors)


def anatomy_of_file(path: Path) -> Anatomy:
    """A checkpoint's blocks, from its header.

    Raises:
        CheckpointError: It cannot be read, or is of no known architecture.
    """
    header = read_header(path)
    layout = detect_layout(header.infos, where=str(path))
    return anatomy_of(layout.architecture, layout.canonical)


def drawable() -> tuple[str, ...]:
    """Ids of the architectures whose keys are listed."""
    known = architectures()
    return tuple(a.id for a in known if expected_layout(a.id) is not None)


def _part(block: Block, pile: _Pile, side: int) -> Part:
    is_constant = block.component is Component.SCHEDULE
    kind, words, n_channels = LOOSE if is_constant else OTHER, block.title, 0
    if block.component is Component.UNET:
        kind, words = _unet_kind(block, pile)
        if kind != LOOSE:
            n_channels = _width(pile)
    return Part(block, kind, words, len(pile.tensors), pile.n_params, n_channels, side)


def _unet_kind(block: Block, pile: _Pile) -> tuple[str, str]:
    """What a block of the denoiser is, and the words for it."""
    if not _NUMBERED.match(block.id):
        return LOOSE, block.title
    if not _UNET_PART.match(next(iter(pile.tensors))):
        kinds = {"SINGLE": SINGLE, "JOINT": JOINT, "DOUBLE": JOINT}
        return kinds.get(block.id.rstrip("0123456789"), ATTENTION), block.title
    depth = 1 + max(
        (int(found[1]) for key in pile.tensors if (found := _LAYER.search(key))),
        default=-1,
    )
    words = []
    n_resnets = sum(key.endswith(".in_layers.0.weight") for key in pile.tensors)
    if n_resnets:
        words.append("resnet" if n_resnets == 1 else f"{n_resnets} resnets")
    if depth:
        words.append("attention" if depth == 1 else f"{depth}-layer transformer")
    is_down, is_up = pile.has(".op.weight"), _has_upsample(pile)
    words += ["down"] * is_down + ["up"] * is_up
    if not words:
        return RESNET, "input convolution"
    if is_down and not n_resnets:
        return DOWN, "downsample"
    return ATTENTION if depth else UP if is_up else RESNET, ", ".join(words)


def _has_upsample(pile: _Pile) -> bool:
    return any(
        re.search(r"output_blocks\.\d+\.\d\.conv\.weight$", k) for k in pile.tensors
    )


def _width(pile: _Pile) -> int:
    """Channels of what leaves a block: the longest run of biases agrees on it."""
    for ending in (
        ".op.bias",
        ".out_layers.3.bias",
        ".attn.proj.bias",
        ".img_attn.proj.bias",
        ".linear2.bias",
        ".0.bias",
    ):
        widths = [
            info.shape[0] for k, info in pile.tensors.items() if k.endswith(ending)
        ]
        if widths:
            return widths[-1]
    return 0


def _sides(piles: Mapping[BlockId, _Pile], latent: int) -> dict[BlockId, int]:
    """Resolution after every numbered block, by down- and upsamplers on the way."""
    side, found = latent, {}
    for block, pile in piles.items():
        if not pile.tensors or not _NUMBERED.match(block):
            continue
        if not _UNET_PART.match(next(iter(pile.tensors))):
            found[block] = latent // _PATCH
            continue
        if pile.has(".op.weight"):
            side = (side + 1) // 2
        if _has_upsample(pile):
            side *= 2
        found[block] = side
    return found
