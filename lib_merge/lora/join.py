"""Joins LoRAs into one: by concatenation, exactly, or by decomposition to a rank.

The result's change is the weighted sum of the inputs' changes. Modules are taken one by
one, so that hundreds of files take no more memory than the largest module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_merge.arch import architectures
from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.outputs import check_output
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.core.blocks import BASE, Architecture
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import Setting
from lib_merge.core.resolved import ParamValues, resolved
from lib_merge.errors import InputError, RecipeError
from lib_merge.lora.factors import Keep
from lib_merge.lora.file import LoraFile, read_lora
from lib_merge.lora.fit import (
    BoundLora,
    Placed,
    bind,
    label_of,
    likely_architectures,
)
from lib_merge.lora.fitted import read_factors
from lib_merge.lora.gather import Gathered
from lib_merge.lora.kinds import Kind
from lib_merge.lora.metadata import JoinedFrom, joined_metadata
from lib_merge.lora.targets import Written, table_of
from lib_merge.lora.writer import LoraWriter

_N_NAMED = 3


@dataclass(frozen=True)
class Weighted:
    """A LoRA and how much of it is taken, by block."""

    path: str
    weight: Setting


@dataclass(frozen=True)
class Joined:
    """A LoRA that was written.

    Attributes:
        path: The file.
        arch_id: The architecture that it is for.
        n_modules: How many modules it changes.
        ranks: Least and greatest rank; (0, 0) where it has none.
        share: Of the change's energy that is kept, over all modules.
        warnings: What was not taken, by name.
    """

    path: Path
    arch_id: str
    n_modules: int
    ranks: tuple[int, int]
    share: float
    warnings: tuple[str, ...] = ()


def join_loras(
    inputs: Sequence[Weighted],
    output: str | os.PathLike[str],
    *,
    keep: Keep | None = None,
    dtype: DType | None = None,
    arch_id: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Joined:
    """Join LoRAs and save the result.

    Args:
        inputs: With their weights.
        output: A .safetensors file to be.
        keep: The rank or the share of energy to decompose to; None concatenates:
            nothing is lost, and ranks add up (to the smaller side of each layer).
        dtype: What factors are stored as; None takes the inputs' widest.
        arch_id: The architecture, where the names leave it open.
        overwrite: Whether an existing output may be replaced.
        progress: Advanced by modules; asked whether to stop.

    Raises:
        RecipeError: Everything that is wrong with the inputs, at once.
        OutputError: The output cannot be written there.
        NonFiniteError: A factor is NaN or infinite, or does not fit the type.
    """
    target = Path(output).expanduser().absolute()
    bound = _bound([read_lora(item.path) for item in inputs], arch_id)
    check_output(target, [b.lora.path for b in bound], overwrite=overwrite)
    architecture = architectures().get(bound[0].arch_id)
    problems = list(_problems(inputs, bound, architecture, keep))
    if problems:
        raise RecipeError(problems)
    weights = [resolved("weight", item.weight, architecture) for item in inputs]
    job = _Job(bound, weights, architecture, keep)
    with LoraWriter(target, dtype or _widest(bound)) as writer:
        try:
            job.run(writer, progress)
        finally:
            job.close()
        if not writer.n_tensors:
            raise InputError(
                "Nothing is left of these LoRAs: every weight or change is 0; give "
                "other weights."
            )
        made = JoinedFrom(
            [
                (b.lora, item.weight.value)
                for b, item in zip(bound, inputs, strict=True)
            ],
            keep,
        )
        writer.finish(joined_metadata(made, architecture.id, job.ranks))
    return Joined(
        path=target,
        arch_id=architecture.id,
        n_modules=job.n_modules,
        ranks=(min(job.ranks, default=0), max(job.ranks, default=0)),
        share=job.share,
        warnings=tuple(_warnings(bound)),
    )


def _bound(loras: Sequence[LoraFile], arch_id: str | None) -> list[BoundLora]:
    """All LoRAs, read for the one architecture that they are for."""
    if not loras:
        raise InputError("No LoRA is named; give at least one file.")
    if arch_id is None:
        fitting = [likely_architectures(lora) for lora in loras]
        common = [a for a in fitting[0] if all(a in other for other in fitting)]
        if not common:
            raise InputError(_mixed(loras, fitting))
        if len(common) > 1:
            raise InputError(
                f"{loras[0].path} could be for {', '.join(map(label_of, common))}; say "
                f"which with --arch {common[0]}."
            )
        arch_id = common[0]
    return [bind(lora, arch_id) for lora in loras]


def _mixed(loras: Sequence[LoraFile], fitting: Sequence[Sequence[str]]) -> str:
    listed = "; ".join(
        f"{lora.path.name} is for {' or '.join(map(label_of, ids)) or 'no known one'}"
        for lora, ids in zip(loras, fitting, strict=True)
    )
    return f"The LoRAs are of different architectures ({listed}); join one kind only."


def _problems(
    inputs: Sequence[Weighted],
    bound: Sequence[BoundLora],
    architecture: Architecture,
    keep: Keep | None,
) -> Iterator[str]:
    for item, lora in zip(inputs, bound, strict=True):
        for block, _ in item.weight.blocks:
            if not architecture.expand(block):
                known = ", ".join(b.id for b in architecture.weighted_blocks())
                yield (
                    f"{lora.lora.path.name}: {architecture.label} has no block "
                    f"'{block}'. Known: {BASE}, {known}."
                )
        modules = [p.module for placed in lora.by_key.values() for p in placed]
        based = [m for m in modules if m.needs_base]
        if based:
            yield (
                f"{lora.lora.path.name} holds {based[0].label}, whose change depends "
                "on the model's weights; bake it (merge MODEL --lora FILE), then take "
                "a LoRA from the result (lora extract)."
            )
        dense = [m for m in modules if m.kind in (Kind.LOHA, Kind.LOKR)]
        if dense and keep is None:
            yield (
                f"{lora.lora.path.name} holds {dense[0].label}, which cannot be "
                "concatenated; decompose to a rank (--how svd --rank 32)."
            )


def _warnings(bound: Sequence[BoundLora]) -> Iterator[str]:
    table = table_of(bound[0].arch_id)
    assert table is not None
    for lora in bound:
        placed = (p for all_placed in lora.by_key.values() for p in all_placed)
        nameless = [p.module.name for p in placed if not table.can_write(p.target)]
        left = [*lora.strangers, *nameless]
        if left:
            shown = ", ".join(left[:_N_NAMED])
            more = ", ..." if len(left) > _N_NAMED else ""
            yield (
                f"{lora.lora.path.name} has {len(left)} modules or tensors "
                f"that mean nothing for {label_of(lora.arch_id)} ({shown}{more}); they "
                "are left out."
            )


def _widest(bound: Sequence[BoundLora]) -> DType:
    """float32 where any input has it, else the type that all have, else float32."""
    types = {
        lora.lora.header.infos[name].dtype
        for lora in bound
        for module in lora.lora.modules
        for role, name in module.tensors
        if role != "alpha"
    }
    return types.pop() if len(types) == 1 else DType.F32


class _Job:
    """Goes over the modules of an architecture and writes what the inputs make."""

    def __init__(
        self,
        bound: Sequence[BoundLora],
        weights: Sequence[ParamValues],
        architecture: Architecture,
        keep: Keep | None,
    ) -> None:
        handles = Handles()
        self._inputs = [
            (lora, weight, CheckpointReader(lora.lora.header, handles))
            for lora, weight in zip(bound, weights, strict=True)
        ]
        self._architecture = architecture
        self._keep = keep
        self._kept, self._total = 0.0, 0.0
        self.n_modules = 0
        self.ranks: list[int] = []

    @property
    def share(self) -> float:
        """Of the energy of all changes that is kept."""
        return self._kept / self._total if self._total else 1.0

    def run(self, writer: LoraWriter, progress: Progress | None) -> None:
        """Write every module."""
        table = table_of(self._architecture.id)
        assert table is not None
        names = list(table.written())
        if progress is not None:
            progress.start("Joining LoRAs", len(names), "modules")
        for written in names:
            if progress is not None:
                progress.check()
                progress.advance(1)
            n_before = writer.n_tensors
            self._weight(written, writer)
            self._bias(written, writer)
            self.n_modules += writer.n_tensors > n_before

    def close(self) -> None:
        """Close every file."""
        for _, _, reader in self._inputs:
            reader.close()

    def _parts(
        self, written: Written, key: str
    ) -> Iterator[tuple[Placed, CheckpointReader, float]]:
        for lora, weight, reader in self._inputs:
            for placed in lora.at(key):
                if not written.target.rows.holds(placed.target.rows):
                    continue
                role = self._architecture.role_of(key)
                assert role is not None
                value = weight.value_for(key, role.block)
                if value:
                    yield placed, reader, value

    def _weight(self, written: Written, writer: LoraWriter) -> None:
        import torch

        gathered = Gathered(written.name, written.target)
        for placed, reader, weight in self._parts(written, written.target.weight):
            factors = read_factors(placed.module, reader, torch.float64)
            gathered.add(placed, factors, weight)
        if gathered.is_empty:
            return
        if gathered.is_vector:
            writer.add(f"{written.name}.w_norm", gathered.dense().reshape(-1))
        elif self._keep is None and gathered.has_differences:
            change = gathered.dense()
            whole = change.reshape(change.shape[0], *gathered.trailing)
            writer.add(f"{written.name}.diff", whole)
        else:
            self._pair(written.name, gathered, writer)

    def _pair(self, name: str, gathered: Gathered, writer: LoraWriter) -> None:
        if self._keep is None:
            up, down = gathered.concatenated()
        else:
            found = gathered.decomposed(self._keep)
            if found is None:
                return
            up, down = found.up, found.down
            self._total += found.total
            self._kept += found.kept
        ones = (1,) * (len(gathered.trailing) - 1)
        up = up.reshape(*up.shape, *ones)
        writer.add_pair(name, up, down.reshape(down.shape[0], *gathered.trailing))
        self.ranks.append(int(up.shape[1]))

    def _bias(self, written: Written, writer: LoraWriter) -> None:
        import torch

        if not written.target.bias:
            return
        gathered = Gathered(written.name, written.target)
        is_norm = False
        for placed, reader, weight in self._parts(written, written.target.bias):
            factors = read_factors(placed.module, reader, torch.float64)
            is_norm = is_norm or placed.module.tensors[0][0] == "b_norm"
            gathered.add(placed, factors, weight)
        if not gathered.is_empty:
            role = "b_norm" if is_norm else "diff_b"
            writer.add(f"{written.name}.{role}", gathered.dense().reshape(-1))
