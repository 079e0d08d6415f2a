"""What the modules of a LoRA file mean in a model: targets, misfits, architectures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from lib_merge.arch import architectures
from lib_merge.checkpoint.names import stored_name
from lib_merge.core.blocks import KeyInfos
from lib_merge.errors import CheckpointError
from lib_merge.lora.file import LoraFile, LoraModule
from lib_merge.lora.kinds import Kind
from lib_merge.lora.names import DOWN, MID
from lib_merge.lora.targets import Target, known_architectures, table_of

_N_NAMED = 3
_CONTEXT = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
"""Features of the text that cross-attention reads: what tells the UNets apart."""


_NOTED = (("sd_v1", "sd1"), ("sd_v2", "sd2"), ("sdxl", "sdxl"), ("flux", "flux"))
"""How kohya's trainer begins a base model's version."""


@dataclass(frozen=True)
class Placed:
    """A module and what it changes."""

    module: LoraModule
    target: Target

    @property
    def key(self) -> str:
        """The tensor that it changes, as the single file spells it."""
        is_bias = self.module.kind is Kind.BIAS
        return self.target.bias if is_bias else self.target.weight


@dataclass(frozen=True, eq=False)
class BoundLora:
    """A LoRA file, read for an architecture.

    Attributes:
        lora: The file.
        arch_id: The architecture.
        by_key: Modules by the key of the tensor that they change.
        strangers: Modules and tensors that mean nothing there, by name.
    """

    lora: LoraFile
    arch_id: str
    by_key: Mapping[str, tuple[Placed, ...]]
    strangers: tuple[str, ...]

    def at(self, key: str) -> tuple[Placed, ...]:
        """The modules that change a tensor, whichever way its key is spelled."""
        name = stored_name(self.by_key, key)
        return () if name is None else self.by_key[name]


@lru_cache(maxsize=512)
def bind(lora: LoraFile, arch_id: str) -> BoundLora:
    """Read a file's names for an architecture.

    Raises:
        CheckpointError: LoRAs of this architecture cannot be read, no name is one of
            its own, or two modules change the same thing.
    """
    table = table_of(arch_id)
    if table is None:
        raise CheckpointError(
            f"LoRAs for {label_of(arch_id)} cannot be read; known: "
            f"{_labels(known_architectures())}."
        )
    by_key: dict[str, list[Placed]] = {}
    strangers = list(lora.strangers)
    for module in lora.modules:
        target = table.find(module.family, module.flat)
        placed = None if target is None else Placed(module, target)
        if placed is None or not placed.key:
            strangers.append(module.name)
            continue
        others = by_key.setdefault(placed.key, [])
        _refuse_second(lora, placed, others)
        others.append(placed)
    if not by_key:
        raise CheckpointError(_no_match(lora, arch_id))
    found = {key: tuple(placed) for key, placed in by_key.items()}
    return BoundLora(lora, arch_id, found, tuple(dict.fromkeys(strangers)))


def _refuse_second(lora: LoraFile, placed: Placed, others: Iterable[Placed]) -> None:
    for other in others:
        rows, held = placed.target.rows, other.target.rows
        if rows.holds(held) or held.holds(rows):
            raise CheckpointError(
                f"{lora.path} changes {placed.key} twice, as '{other.module.name}' and "
                f"as '{placed.module.name}': LoRAs of two kinds of names were put into "
                "one file. Choose a file with one kind."
            )


def _no_match(lora: LoraFile, arch_id: str) -> str:
    first = ", ".join(m.name for m in lora.modules[:_N_NAMED])
    fitting = likely_architectures(lora)
    what = f"it is made for {_labels(fitting)}" if fitting else f"it names {first}"
    return (
        f"{lora.path} does not fit {label_of(arch_id)}: {what}. Choose a LoRA and a "
        "model of one architecture."
    )


def likely_architectures(lora: LoraFile) -> tuple[str, ...]:
    """Architectures that most of a file's modules belong to.

    Names tell; where they leave it open, the size of the text features does, and then
    what the trainer noted.

    Returns:
        Ids, mostly one; empty where no module has a known name.
    """
    matched: dict[str, list[tuple[LoraModule, Target]]] = {}
    for arch_id in known_architectures():
        table = table_of(arch_id)
        assert table is not None
        targets = [(m, table.find(m.family, m.flat)) for m in lora.modules]
        matched[arch_id] = [(m, t) for m, t in targets if t is not None]
    most = max(len(found) for found in matched.values())
    if not most:
        return ()
    named = {a: found for a, found in matched.items() if len(found) == most}
    sized = tuple(
        arch_id
        for arch_id, found in named.items()
        if all(_is_context(arch_id, module, target) for module, target in found)
    )
    left = sized or tuple(named)
    said = _said(lora)
    return (said,) if said in left else left


def _said(lora: LoraFile) -> str:
    """The architecture that the trainer noted, or ""."""
    noted = lora.header.metadata.get("ss_base_model_version", "").lower()
    return next((arch for start, arch in _NOTED if noted.startswith(start)), "")


def _is_context(arch_id: str, module: LoraModule, target: Target) -> bool:
    """Whether a module reads as many text features as the architecture has."""
    columns = module.extent.columns
    if not columns:
        return True
    if target.weight.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
        return columns == _CONTEXT.get(arch_id, columns)
    if target.weight.endswith("attn.in_proj_weight"):
        return columns == {"sd2": 1024, "sdxl": 1280}.get(arch_id, columns)
    return True


def label_of(arch_id: str) -> str:
    """What people call an architecture."""
    known = architectures()
    return known.get(arch_id).label if arch_id in known else arch_id


def _labels(arch_ids: Iterable[str]) -> str:
    return " or ".join(label_of(arch_id) for arch_id in arch_ids)


def misfits(bound: BoundLora, infos: KeyInfos, where: str) -> list[str]:
    """Modules whose change has another shape than the tensor of a model.

    Args:
        bound: The LoRA.
        infos: The model's tensors.
        where: The model's file, for the message.

    Returns:
        Nothing, or one sentence that names both architectures.
    """
    wrong = []
    for key, placed in bound.by_key.items():
        name = stored_name(infos, key)
        if name is None:
            continue
        wrong += [
            f"{p.module.name} is {_size(p.module)}, {key} is {list(infos[name].shape)}"
            for p in placed
            if not _fits(p, infos[name].shape)
        ]
    if not wrong:
        return []
    fitting = likely_architectures(bound.lora)
    made_for = f" (a LoRA for {_labels(fitting)})" if fitting else ""
    more = "; ..." if len(wrong) > _N_NAMED else ""
    return [
        f"{bound.lora.path}{made_for} does not fit {where} ({label_of(bound.arch_id)}) "
        f"in {len(wrong)} modules: {'; '.join(wrong[:_N_NAMED])}{more}. Choose a LoRA "
        "and a model of one architecture and size."
    ]


def absent(bound: BoundLora, infos: KeyInfos) -> list[str]:
    """Names of modules whose tensor the model lacks (no text encoder in it, say)."""
    return [
        placed.module.name
        for key, all_placed in bound.by_key.items()
        if stored_name(infos, key) is None
        for placed in all_placed
    ]


def _size(module: LoraModule) -> str:
    columns = module.extent.columns
    return (
        f"{module.extent.rows}x{columns}" if columns else f"{module.extent.rows} rows"
    )


def matrix_sides(target: Target, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the part of a tensor that a target means, as trainers see it.

    A vector is one column.
    """
    rows, columns = (shape[0] if shape else 1), prod(shape[1:])
    if target.is_transposed:
        return columns, rows
    first, last = target.rows.span(rows)
    return last - first, columns


def _fits(placed: Placed, shape: tuple[int, ...]) -> bool:
    extent = placed.module.extent
    rows, columns = matrix_sides(placed.target, shape)
    return extent.rows == rows and extent.columns in (0, columns)


_CONVOLUTION = re.compile(
    r"\.(in_layers\.2|out_layers\.3|op|conv|input_blocks\.0\.0|"
    r"diffusion_model\.out\.2)\.weight"
)
"""Keys of the UNets' convolutions over 3 by 3 places."""


def trailing_shape(module: LoraModule, target: Target) -> tuple[int, ...]:
    """The shape of a row of the weight: inputs, then the sides of a kernel.

    LyCORIS flattens kernels in some kinds; there the weight's name tells.
    """
    shapes = dict(module.shapes)
    if module.kind is Kind.LORA:
        return (*shapes[DOWN][1:2], *shapes.get(MID, shapes[DOWN])[2:])
    if module.kind is Kind.FULL:
        return shapes["diff"][1:]
    columns = module.extent.columns
    if _CONVOLUTION.search(target.weight) and columns % 9 == 0:
        return (columns // 9, 3, 3)
    return (columns,)
