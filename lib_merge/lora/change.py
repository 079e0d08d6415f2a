"""The change that a module makes to a weight, computed from its factors row by row.

Every change is a matrix [rows, columns]. `rows(start, stop)` computes some rows without
the rest, so that a change is never held whole; what depends on the weight that it
changes (DoRA, GLoRA, OFT) is computed whole, from that weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lib_merge.lora.file import LoraModule
from lib_merge.lora.kinds import Kind, is_old_glora
from lib_merge.lora.names import ALPHA, DORA, DOWN, MAGNITUDE, MID, UP

if TYPE_CHECKING:
    from torch import Tensor

Factors = Mapping[str, "Tensor"]
"""Tensors of a module by the part that they play, in the working dtype."""


class Change(Protocol):
    """A matrix that is computed in runs of rows."""

    @property
    def n_rows(self) -> int:
        """How many rows it has."""
        ...

    @property
    def n_columns(self) -> int:
        """How many values a row has."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop); not to be written to."""
        ...


@dataclass(frozen=True)
class Product:
    """up [rows, rank] times down [rank, columns]; the scale is in one of them."""

    up: Tensor
    down: Tensor

    @property
    def n_rows(self) -> int:
        """Rows of up."""
        return int(self.up.shape[0])

    @property
    def n_columns(self) -> int:
        """Columns of down."""
        return int(self.down.shape[1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows."""
        return self.up[start:stop] @ self.down


@dataclass(frozen=True)
class Hadamard:
    """Two changes of one shape, multiplied value by value."""

    one: Change
    two: Change

    @property
    def n_rows(self) -> int:
        """Rows of either."""
        return self.one.n_rows

    @property
    def n_columns(self) -> int:
        """Columns of either."""
        return self.one.n_columns

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows."""
        return self.one.rows(start, stop) * self.two.rows(start, stop)


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product of a small matrix and a large one."""

    small: Tensor
    large: Tensor

    @property
    def n_rows(self) -> int:
        """The product of both sides."""
        return int(self.small.shape[0] * self.large.shape[0])

    @property
    def n_columns(self) -> int:
        """The product of both sides."""
        return int(self.small.shape[1] * self.large.shape[1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows: row i is row i // n of small by row i % n of large."""
        import torch

        index = torch.arange(start, stop, device=self.small.device)
        n_large = self.large.shape[0]
        one = self.small[index // n_large][:, :, None]
        two = self.large[index % n_large][:, None, :]
        return (one * two).reshape(stop - start, self.n_columns)


@dataclass(frozen=True)
class Dense:
    """A change that is there as it is."""

    values: Tensor

    @property
    def n_rows(self) -> int:
        """Its rows."""
        return int(self.values.shape[0])

    @property
    def n_columns(self) -> int:
        """Its columns."""
        return int(self.values.shape[1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows."""
        return self.values[start:stop]


def change_of(module: LoraModule, factors: Factors) -> Change:
    """The change of a module that does not depend on the weight (DoRA's: before it).

    Args:
        module: Of the file.
        factors: Its tensors, all of one float type.
    """
    if module.kind.is_difference:
        values = factors[module.tensors[0][0]]
        return Dense(values.reshape(module.extent.rows, -1))
    if module.kind is Kind.LOHA:
        return _loha(module, factors)
    if module.kind is Kind.LOKR:
        return _lokr(module, factors)
    assert module.kind is Kind.LORA
    up, down = low_rank_factors(factors)
    return Product(up * module.scale, down)


def low_rank_factors(factors: Factors) -> tuple[Tensor, Tensor]:
    """Up [rows, rank] and down [rank, columns] of a LoRA or LoCon, unscaled.

    A Tucker core is multiplied into down, which loses nothing.
    """
    import torch

    up = factors[UP].flatten(1)
    down = factors[DOWN]
    if MID in factors:
        # mid [rank out, rank in, kernel] and down [rank in, channels, 1, 1].
        down = torch.einsum("pq...,qi->pi...", factors[MID], down.flatten(1))
    return up, down.flatten(1)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Product:
    """Sum of core[p, q, kernel] a[p, rows] b[q, channels]."""
    import torch

    down = torch.einsum("pq...,qi->pi...", core, b)
    return Product(a.transpose(0, 1).contiguous(), down.flatten(1))


def _loha(module: LoraModule, factors: Factors) -> Change:
    if "hada_t1" in factors:
        parts = [
            _tucker(factors[f"hada_t{n}"], factors[f"hada_w{n}_a"], factors[w_b])
            for n, w_b in ((1, "hada_w1_b"), (2, "hada_w2_b"))
        ]
    else:
        parts = [
            Product(
                factors[f"hada_w{n}_a"].flatten(1), factors[f"hada_w{n}_b"].flatten(1)
            )
            for n in (1, 2)
        ]
    one, two = parts
    return Hadamard(Product(one.up * module.scale, one.down), two)


def _lokr(module: LoraModule, factors: Factors) -> Change:
    if "lokr_w1" in factors:
        small = factors["lokr_w1"].flatten(1)
    else:
        small = factors["lokr_w1_a"] @ factors["lokr_w1_b"].flatten(1)
    if "lokr_w2" in factors:
        large = factors["lokr_w2"].flatten(1)
    elif "lokr_t2" in factors:
        product = _tucker(
            factors["lokr_t2"], factors["lokr_w2_a"], factors["lokr_w2_b"]
        )
        large = product.up @ product.down
    else:
        large = factors["lokr_w2_a"].flatten(1) @ factors["lokr_w2_b"].flatten(1)
    return Kronecker(small * module.scale, large)


def change_from_base(module: LoraModule, factors: Factors, base: Tensor) -> Tensor:
    """The change of a module that depends on the weight that it changes.

    Args:
        module: Of the file.
        factors: Its tensors, all of the base's type.
        base: The weight, [rows, columns]; not written to.

    Returns:
        New weight less base, [rows, columns].
    """
    if module.kind is Kind.GLORA:
        return _glora(module, factors, base)
    if module.kind in (Kind.OFT, Kind.BOFT):
        return _rotated(module, factors, base) - base
    change = change_of(module, factors)
    weight = base + change.rows(0, change.n_rows)
    if MAGNITUDE in factors:
        return _with_rows(weight, factors[MAGNITUDE]) - base
    return _with_magnitude(weight, factors[DORA]) - base


def _with_rows(weight: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA: each row of a weight brought to a length of its own."""
    import torch

    length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    length += torch.finfo(weight.dtype).eps
    scaled: Tensor = weight * (magnitude.reshape(-1, 1) / length)
    return scaled


def _with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """As LyCORIS stores it: [rows, 1] of the rows, [1, inputs] of the channels."""
    import torch

    if magnitude.shape[0] != 1 or magnitude.numel() == 1:
        return _with_rows(weight, magnitude)
    channels = weight.reshape(weight.shape[0], magnitude.numel(), -1)
    length = torch.linalg.vector_norm(channels, dim=(0, 2), keepdim=True)
    length += torch.finfo(weight.dtype).eps
    scaled: Tensor = channels * (magnitude.reshape(1, -1, 1) / length)
    return scaled.reshape(weight.shape)


def _glora(module: LoraModule, factors: Factors, base: Tensor) -> Tensor:
    """base A + B, where A works on the input channels."""
    import torch

    if is_old_glora(dict(module.shapes)):
        a_in, a_out = factors["a2"].flatten(1), factors["a1"].flatten(1)
        b = factors["b2"].flatten(1) @ factors["b1"].flatten(1)
    else:
        a_in, a_out = factors["a1"].flatten(1), factors["a2"].flatten(1)
        if "bm" in factors:
            core = torch.einsum(
                "pq...,qi->pi...", factors["bm"], factors["b2"].flatten(1)
            )
            b = factors["b1"].flatten(1) @ core.flatten(1)
        else:
            b = factors["b1"].flatten(1) @ factors["b2"].flatten(1)
    channels = base.reshape(base.shape[0], a_in.shape[0], -1)
    moved = torch.einsum("oik,ir,rj->ojk", channels, a_in, a_out)
    return (moved.reshape(base.shape) + b) * module.scale


def _rotated(module: LoraModule, factors: Factors, base: Tensor) -> Tensor:
    """The weight with its output rows turned by orthogonal blocks, then rescaled."""
    import torch

    blocks = factors["oft_blocks"]
    turns = _orthogonal(blocks, _limit(factors, base.shape[0]))
    if module.kind is Kind.OFT:
        n_blocks, side, _ = blocks.shape
        weight = torch.einsum(
            "knm,kni->kmi", turns, base.reshape(n_blocks, side, -1)
        ).reshape(base.shape)
    else:
        weight = base
        for stage in range(blocks.shape[0]):
            weight = _butterfly(weight, turns[stage], 2**stage)
    if "rescale" in factors:
        weight = weight * factors["rescale"].reshape(-1, 1)
    return weight


def _limit(factors: Factors, n_rows: int) -> float:
    """How large the skew part may be; 0 for no limit."""
    if ALPHA not in factors:
        return 0.0
    return float(factors[ALPHA].reshape(-1)[0]) * n_rows


def _orthogonal(blocks: Tensor, limit: float) -> Tensor:
    """(I + Q) / (I - Q) of the skew part Q of each block (Cayley's transform)."""
    import torch

    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        size = float(torch.linalg.vector_norm(skew)) + 1e-8
        if size > limit:
            skew = skew * (limit / size)
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    # X (I - Q) = I + Q, with both sides transposed to solve for X.
    solved: Tensor = torch.linalg.solve((eye - skew).mT, (eye + skew).mT)
    return solved.mT


def _butterfly(weight: Tensor, turns: Tensor, stride: int) -> Tensor:
    """One stage of BOFT: turns rows together that lie `stride` half blocks apart."""
    side = turns.shape[-1]
    n_columns = weight.shape[1]
    step = stride * (side // 2)
    mixed = weight.reshape(-1, 2, step, n_columns).transpose(1, 2)
    mixed = mixed.reshape(-1, side, n_columns)
    mixed = turns @ mixed
    mixed = mixed.reshape(-1, step, 2, n_columns).transpose(1, 2)
    return mixed.reshape(weight.shape)


def n_panel_rows(n_columns: int) -> int:
    """Rows that are computed at once: by the row's length alone.

    Blocks of the same bounds give the same bits however a tensor is cut up, because the
    order in which a matrix product adds depends on its size.
    """
    return max(16, _PANEL_VALUES // max(1, n_columns))


_PANEL_VALUES = 1 << 17


def panel_elements(shape: tuple[int, ...]) -> int:
    """Values of one block of rows of a tensor; of all of it where that is less."""
    n_columns = math.prod(shape[1:])
    n_rows = min(shape[0] if shape else 1, n_panel_rows(n_columns))
    return max(1, n_rows * n_columns)


def panel_bounds(n_rows: int, n_columns: int, row: int) -> tuple[int, int]:
    """First row of the block that a row is in, and the one behind its last."""
    size = n_panel_rows(n_columns)
    first = row // size * size
    return first, min(first + size, n_rows)
