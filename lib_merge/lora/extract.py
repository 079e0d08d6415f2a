"""Takes a LoRA out of the difference of two checkpoints, module by module."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.arch import detect_layout
from lib_merge.checkpoint.handles import Handles
from lib_merge.checkpoint.header import read_header
from lib_merge.checkpoint.outputs import check_output
from lib_merge.checkpoint.reader import CheckpointReader
from lib_merge.checkpoint.scaled import refuse_scaled
from lib_merge.core.blocks import Component, TensorInfo
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import Layout, find_stored
from lib_merge.core.naming import How
from lib_merge.core.ports import Progress
from lib_merge.errors import InputError, NonFiniteError, RecipeError
from lib_merge.lora.factors import Factors, Keep, factorise
from lib_merge.lora.metadata import lora_metadata
from lib_merge.lora.targets import Table, Written, known_architectures, table_of
from lib_merge.lora.writer import LoraWriter

if TYPE_CHECKING:
    from torch import Tensor

_N_NAMED = 3
_EMBEDDING = ("token_embedding.weight", "position_embedding.weight", "_embedding")


@dataclass(frozen=True)
class Wanted:
    """What of a difference a LoRA is to hold.

    Attributes:
        keep: Rank, share of energy, or both.
        dtype: What factors are stored as.
        components: Components whose difference is taken; None for all that LoRAs have
            names for.
        has_vectors: Whether differences of biases and norms are stored, too, as they
            are; trainers of plain LoRAs leave them alone.
    """

    keep: Keep
    dtype: DType = DType.F16
    components: tuple[Component, ...] | None = None
    has_vectors: bool = False


@dataclass(frozen=True)
class Extracted:
    """A LoRA that was written.

    Attributes:
        path: The file.
        arch_id: The architecture that it is for.
        n_modules: How many modules it changes.
        ranks: Least and greatest rank; (0, 0) where it has none.
        share: Of the energy of those modules' differences that it holds.
        warnings: Differences that it does not hold, by name.
    """

    path: Path
    arch_id: str
    n_modules: int
    ranks: tuple[int, int]
    share: float
    warnings: tuple[str, ...] = ()


def extract_lora(
    model: str | os.PathLike[str],
    base: str | os.PathLike[str],
    output: str | os.PathLike[str],
    wanted: Wanted,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Extracted:
    """Save model less base as a LoRA.

    Args:
        model: The checkpoint whose difference is wanted.
        base: The checkpoint that it is taken from.
        output: A .safetensors file to be.
        wanted: How much of it.
        overwrite: Whether an existing output may be replaced.
        progress: Advanced by modules; asked whether to stop.

    Raises:
        CheckpointError: One of them is damaged or of no known architecture.
        RecipeError: They do not go together, or LoRAs of their architecture have no
            names that are known.
        OutputError: The output cannot be written there.
        InputError: They are equal where a LoRA could hold a difference.
        NonFiniteError: A difference is NaN or infinite.
    """
    target = Path(output).expanduser().absolute()
    pair = _Pair([Path(model), Path(base)])
    check_output(target, pair.paths, overwrite=overwrite)
    try:
        with LoraWriter(target, wanted.dtype) as writer:
            job = _Job(pair, wanted, writer)
            job.run(progress)
            if not writer.n_tensors:
                raise InputError(
                    f"{pair.paths[0]} and {pair.paths[1]} are equal in all that a LoRA "
                    "could change; choose another model or base."
                )
            made_of = {
                "how": "extracted",
                "model": pair.paths[0].name,
                "base": pair.paths[1].name,
                "rank": wanted.keep.rank,
                "energy": wanted.keep.energy,
            }
            writer.finish(lora_metadata(pair.arch_id, job.ranks, made_of))
    finally:
        pair.close()
    return Extracted(
        path=target,
        arch_id=pair.arch_id,
        n_modules=job.n_modules,
        ranks=(min(job.ranks, default=0), max(job.ranks, default=0)),
        share=job.kept / job.total if job.total else 1.0,
        warnings=tuple(job.warnings()),
    )


class _Pair:
    """Two checkpoints of one architecture, read under the same names."""

    def __init__(self, paths: Sequence[Path]) -> None:
        headers = [read_header(path) for path in paths]
        for header in headers:
            refuse_scaled(header)
        self.paths = [header.path.absolute() for header in headers]
        layouts = [detect_layout(h.infos, where=str(h.path)) for h in headers]
        ids = [layout.architecture.id for layout in layouts]
        if ids[0] != ids[1]:
            labels = [layout.architecture.label for layout in layouts]
            raise RecipeError(
                [
                    f"{paths[0]} is {labels[0]}, {paths[1]} is {labels[1]}; a LoRA is "
                    "the difference of two models of one architecture."
                ]
            )
        self.arch_id = ids[0]
        if table_of(self.arch_id) is None:
            raise RecipeError(
                [
                    f"LoRAs for {layouts[0].architecture.label} cannot be written; "
                    f"known: {', '.join(known_architectures())}."
                ]
            )
        handles = Handles()
        self._sides = [
            (layout, CheckpointReader(header, handles))
            for layout, header in zip(layouts, headers, strict=True)
        ]
        self.canonical = layouts[0].as_canonical()

    def info(self, key: str) -> TensorInfo | None:
        """A tensor of both, or None where one of them lacks it.

        Raises:
            RecipeError: They have it in different shapes.
        """
        if key not in self.canonical.infos:
            return None
        other = find_stored(self.canonical, key, self._sides[1][0])
        mine = self.canonical.infos[key]
        if other is None or not mine.dtype.is_float or not other.info.dtype.is_float:
            return None
        if other.info.shape != mine.shape or other.n_channels is not None:
            raise RecipeError(
                [
                    f"{self.paths[0]} and {self.paths[1]} differ in size: {key} is "
                    f"{list(mine.shape)} and {list(other.info.shape)}; choose models "
                    "of one size."
                ]
            )
        return mine

    def difference(self, key: str) -> Tensor:
        """Model less base, float64, in the canonical shape.

        Raises:
            NonFiniteError: It is NaN or infinite somewhere.
        """
        import torch

        model, base = (self._read(key, *side) for side in self._sides)
        change = model - base
        if not bool(torch.isfinite(change).all()):
            raise NonFiniteError(
                f"'{key}' holds NaN or infinity in {self.paths[0]} or {self.paths[1]}; "
                "repair the file or choose another."
            )
        return change

    def _read(self, key: str, layout: Layout, reader: CheckpointReader) -> Tensor:
        import torch

        stored = find_stored(self.canonical, key, layout)
        assert stored is not None
        parts = [reader.read(run.key, run.start, run.stop) for run in stored.runs]
        flat = torch.cat([part.to(torch.float64) for part in parts])
        if stored.how is How.TRANSPOSED:
            return flat.reshape(stored.info.shape[::-1]).transpose(0, 1)
        return flat.reshape(stored.info.shape)

    def close(self) -> None:
        """Close both files."""
        for _, reader in self._sides:
            reader.close()


class _Job:
    """Goes over the modules and writes their differences."""

    def __init__(self, pair: _Pair, wanted: Wanted, writer: LoraWriter) -> None:
        table = table_of(pair.arch_id)
        assert table is not None
        self._pair = pair
        self._wanted = wanted
        self._writer = writer
        self._names = list(_wanted_names(table, pair.canonical, wanted.components))
        self._left: list[str] = []
        self._held: tuple[str, Tensor] | None = None
        self.n_modules = 0
        self.ranks: list[int] = []
        self.kept, self.total = 0.0, 0.0

    def run(self, progress: Progress | None) -> None:
        """Write every module that differs."""
        # Sizes first: a fault in them is found before the first decomposition.
        infos = {key: self._pair.info(key) for key in _keys(self._names)}
        if progress is not None:
            progress.start("Extracting a LoRA", len(self._names), "modules")
        for written in self._names:
            if progress is not None:
                progress.check()
            n_before = self._writer.n_tensors
            self._module(written, infos)
            self.n_modules += self._writer.n_tensors > n_before
            if progress is not None:
                progress.advance(1)

    def _module(self, written: Written, infos: dict[str, TensorInfo | None]) -> None:
        key, bias = written.target.weight, written.target.bias
        info = infos[key]
        if info is not None and len(info.shape) > 1 and not key.endswith(_EMBEDDING):
            self._matrix(written)
        elif info is not None:
            is_norm = len(info.shape) == 1
            self._vector(written, key, "w_norm" if is_norm else None)
        if bias and infos[bias] is not None:
            is_norm = info is not None and len(info.shape) == 1
            self._vector(written, bias, "b_norm" if is_norm else "diff_b")

    def _matrix(self, written: Written) -> None:
        part = self._part(written, written.target.weight)
        trailing = tuple(part.shape[1:])
        found = factorise(part.reshape(part.shape[0], -1), self._wanted.keep)
        if found is not None:
            self._add(written.name, found, trailing)

    def _add(self, name: str, found: Factors, trailing: tuple[int, ...]) -> None:
        ones = (1,) * (len(trailing) - 1)
        up = found.up.reshape(*found.up.shape, *ones)
        self._writer.add_pair(name, up, found.down.reshape(found.rank, *trailing))
        self.ranks.append(found.rank)
        self.kept += found.kept
        self.total += found.total

    def _vector(self, written: Written, key: str, role: str | None) -> None:
        part = self._part(written, key)
        if not bool(part.any()):
            return
        if role is None or not self._wanted.has_vectors:
            self._left.append(key)
        else:
            self._writer.add(f"{written.name}.{role}", part)

    def _part(self, written: Written, key: str) -> Tensor:
        """The module's rows of a difference, as trainers see them."""
        if self._held is None or self._held[0] != key:
            self._held = (key, self._pair.difference(key))
        change = self._held[1]
        if written.target.is_transposed:
            return change.transpose(0, 1)
        first, last = written.target.rows.span(change.shape[0])
        return change[first:last]

    def warnings(self) -> Iterator[str]:
        """What differs and is not in the LoRA."""
        left = list(dict.fromkeys(self._left))
        if left:
            more = ", ..." if len(left) > _N_NAMED else ""
            yield (
                f"{len(left)} differences of biases, norms or embeddings are not in "
                f"the LoRA ({', '.join(left[:_N_NAMED])}{more}); those of biases and "
                "norms are stored with --vectors."
            )


def _wanted_names(
    table: Table, layout: Layout, components: Sequence[Component] | None
) -> Iterator[Written]:
    for written in table.written():
        role = layout.architecture.role_of(written.target.weight)
        if role is None or (
            components is not None and role.component not in components
        ):
            continue
        yield written


def _keys(names: Sequence[Written]) -> Iterator[str]:
    for written in names:
        yield written.target.weight
        if written.target.bias:
            yield written.target.bias
