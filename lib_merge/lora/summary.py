"""What a LoRA file is, for people: kinds, ranks, strength by block, trained words."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib_merge.arch import architectures
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.blocks import BlockId
from lib_merge.core.ports import Progress
from lib_merge.lora.change import change_of, low_rank_factors, panel_bounds
from lib_merge.lora.file import LoraFile, LoraModule, read_lora
from lib_merge.lora.fit import bind, label_of, likely_architectures
from lib_merge.lora.fitted import read_factors
from lib_merge.lora.kinds import Kind
from lib_merge.lora.metadata import tag_counts

if TYPE_CHECKING:
    import torch

_WORDS = ("modelspec.trigger_phrase", "ss_output_name", "modelspec.title")


@dataclass(frozen=True)
class LoraSummary:
    """What a LoRA file is.

    Attributes:
        lora: The file.
        arch_ids: Architectures that it could be for; mostly one.
        kinds: Number of modules by kind.
        ranks: Number of modules by rank, 0 for those without.
        scales: Number of modules by alpha over rank.
        families: Number of modules by unet, te1, te2.
        dtypes: Number of tensors by type.
        norms: Frobenius norm of the change by block, at strength 1; None where it
            depends on the model.
        strangers: Modules and tensors that mean nothing in the first architecture.
        words: Names and trigger words in the metadata.
        tags: The tags that stood most often in the training captions.
    """

    lora: LoraFile
    arch_ids: tuple[str, ...]
    kinds: Mapping[str, int]
    ranks: Mapping[int, int]
    scales: Mapping[float, int]
    families: Mapping[str, int]
    dtypes: Mapping[str, int]
    norms: Mapping[BlockId, float | None]
    strangers: tuple[str, ...]
    words: Mapping[str, str]
    tags: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        """What people call the architecture."""
        return " or ".join(map(label_of, self.arch_ids)) or "unknown"


def summarise_lora(
    path: str | os.PathLike[str], *, n_tags: int = 20, progress: Progress | None = None
) -> LoraSummary:
    """Read a LoRA file whole and say what it is.

    Args:
        path: The file.
        n_tags: How many of the tags are listed.
        progress: Advanced by modules; asked whether to stop.

    Raises:
        CheckpointError: It is no LoRA, or damaged.
        NonFiniteError: A factor is NaN or infinite.
    """
    lora = read_lora(path)
    arch_ids = likely_architectures(lora)
    bound = bind(lora, arch_ids[0]) if arch_ids else None
    metadata = lora.header.metadata
    tags = Counter(tag_counts(metadata)).most_common(n_tags)
    return LoraSummary(
        lora=lora,
        arch_ids=arch_ids,
        kinds=Counter(module.label for module in lora.modules),
        ranks=Counter(module.extent.rank for module in lora.modules),
        scales=Counter(module.scale for module in lora.modules),
        families=Counter(module.family or "unnamed" for module in lora.modules),
        dtypes=Counter(info.dtype.torch_name for info in lora.header.infos.values()),
        norms={} if not arch_ids else block_norms(lora, arch_ids[0], progress),
        strangers=lora.strangers if bound is None else bound.strangers,
        words={name: metadata[name] for name in _WORDS if metadata.get(name)},
        tags=tuple(tags),
    )


def block_norms(
    lora: LoraFile, arch_id: str, progress: Progress | None = None
) -> dict[BlockId, float | None]:
    """The Frobenius norm of a LoRA's change at strength 1, by block, in their order.

    Args:
        lora: The file.
        arch_id: The architecture that its names are read for.
        progress: Advanced by modules; asked whether to stop.
    """
    import torch

    architecture = architectures().get(arch_id)
    squares: dict[BlockId, float | None] = {}
    placed = [
        p for all_placed in bind(lora, arch_id).by_key.values() for p in all_placed
    ]
    if progress is not None:
        progress.start(f"Reading {lora.path.name}", len(placed), "modules")
    with CheckpointReader(lora.header) as reader:
        for one in placed:
            if progress is not None:
                progress.check()
                progress.advance(1)
            role = architecture.role_of(one.key)
            block = BlockId("?") if role is None else role.block
            own = _squares(one.module, reader, torch.float64)
            before = squares.get(block, 0.0)
            known = own is not None and before is not None
            squares[block] = (before or 0.0) + (own or 0.0) if known else None
    order = [b for b in architecture.block_ids() if b in squares]
    found = {block: squares[block] for block in order}
    return {b: None if s is None else math.sqrt(s) for b, s in found.items()}


def _squares(
    module: LoraModule, reader: CheckpointReader, dtype: torch.dtype
) -> float | None:
    """The sum of the squares of a module's change; None where it needs the model."""
    if module.needs_base:
        return None
    factors = read_factors(module, reader, dtype)
    if module.kind is Kind.LORA:
        up, down = low_rank_factors(factors)
        inner = (up.mT @ up).mul(down @ down.mT).sum()
        return max(0.0, float(inner)) * module.scale**2
    change = change_of(module, factors)
    total, row = 0.0, 0
    while row < change.n_rows:
        first, row = panel_bounds(change.n_rows, change.n_columns, row)
        total += float(change.rows(first, row).square().sum())
    return total
