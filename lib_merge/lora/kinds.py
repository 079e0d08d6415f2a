"""The kinds of LoRA: which tensors make one up, and what shape of change they give.

Shapes are read as (rows, columns): a convolution's columns are its input channels times
the places of its kernel. Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685); LoCon,
LoHa, LoKr, diag-OFT and norms as KohakuBlueleaf's LyCORIS stores them (2309.14859);
GLoRA, Chavan et al. 2023 (2306.07967); DoRA, Liu et al. 2024 (2402.09353); BOFT, Liu et
al. 2023 (2311.06243).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

from lib_merge.lora.names import DORA, DOWN, MAGNITUDE, MID, UP

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Shape of each tensor of a module, by the part that it plays."""


class Kind(Enum):
    """A way to write the change of a weight: (id, label)."""

    LORA = ("lora", "LoRA")
    LOHA = ("loha", "LoHa")
    LOKR = ("lokr", "LoKr")
    GLORA = ("glora", "GLoRA")
    OFT = ("oft", "OFT")
    BOFT = ("boft", "BOFT")
    FULL = ("full", "full difference")
    NORM = ("norm", "norm difference")
    BIAS = ("bias", "bias difference")

    def __init__(self, id: str, label: str) -> None:
        self.id = id
        self.label = label

    @property
    def needs_base(self) -> bool:
        """Whether the change depends on the weight that is changed."""
        return self in (Kind.GLORA, Kind.OFT, Kind.BOFT)

    @property
    def is_difference(self) -> bool:
        """Whether the file holds the change as it is."""
        return self in (Kind.FULL, Kind.NORM, Kind.BIAS)


@dataclass(frozen=True)
class Extent:
    """The change that a module makes, as far as its tensors' shapes tell.

    Attributes:
        rows: Of the change.
        columns: Of the change; 0 where any number will do.
        rank: Of its factors; 0 where the kind has none.
    """

    rows: int
    columns: int
    rank: int


class WrongShapes(Exception):
    """The tensors of a module do not go together; caught where the file is read."""


def _same(what: str, *sides: int) -> int:
    if len(set(sides)) != 1:
        raise WrongShapes(f"{what} differ ({' and '.join(map(str, sides))})")
    return sides[0]


def _side(shapes: Shapes, role: str, axis: int) -> int:
    shape = shapes[role]
    if len(shape) <= axis:
        raise WrongShapes(f"{role} has only {len(shape)} axes")
    return shape[axis]


def _rest(shapes: Shapes, role: str, axis: int = 1) -> int:
    _side(shapes, role, 0)
    return prod(shapes[role][axis:])


def _lora(shapes: Shapes) -> Extent:
    rank = _same("the ranks of up and down", _side(shapes, UP, 1), shapes[DOWN][0])
    if prod(shapes[UP][2:]) != 1:
        raise WrongShapes(f"up is {list(shapes[UP])}, not rows by rank")
    if MID not in shapes:
        return Extent(shapes[UP][0], _rest(shapes, DOWN), rank)
    _same("the ranks of mid", *shapes[MID][:2], rank)
    columns = _side(shapes, DOWN, 1) * _rest(shapes, MID, 2)
    return Extent(shapes[UP][0], columns, rank)


def _pair(shapes: Shapes, a: str, b: str) -> Extent:
    rank = _same(f"the ranks of {a} and {b}", _side(shapes, a, 1), shapes[b][0])
    return Extent(shapes[a][0], _rest(shapes, b), rank)


def _tucker(shapes: Shapes, a: str, b: str, core: str) -> Extent:
    """`a` is stored with the rank first, like `b`."""
    _same(f"the ranks of {core} and {a}", _side(shapes, core, 0), shapes[a][0])
    rank = _same(f"the ranks of {core} and {b}", _side(shapes, core, 1), shapes[b][0])
    columns = _side(shapes, b, 1) * _rest(shapes, core, 2)
    return Extent(_side(shapes, a, 1), columns, rank)


def _loha(shapes: Shapes) -> Extent:
    if "hada_t1" in shapes:
        one = _tucker(shapes, "hada_w1_a", "hada_w1_b", "hada_t1")
        two = _tucker(shapes, "hada_w2_a", "hada_w2_b", "hada_t2")
    else:
        one = _pair(shapes, "hada_w1_a", "hada_w1_b")
        two = _pair(shapes, "hada_w2_a", "hada_w2_b")
    _same("the two halves", one.rows, two.rows)
    _same("the two halves", one.columns, two.columns)
    return one


def _lokr(shapes: Shapes) -> Extent:
    ranks = [0]
    if "lokr_w1" in shapes:
        rows, columns = _side(shapes, "lokr_w1", 0), _rest(shapes, "lokr_w1")
    else:
        small = _pair(shapes, "lokr_w1_a", "lokr_w1_b")
        rows, columns = small.rows, small.columns
        ranks.append(small.rank)
    if "lokr_w2" in shapes:
        return Extent(
            rows * _side(shapes, "lokr_w2", 0),
            columns * _rest(shapes, "lokr_w2"),
            ranks[-1],
        )
    if "lokr_t2" in shapes:
        large = _tucker(shapes, "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    else:
        large = _pair(shapes, "lokr_w2_a", "lokr_w2_b")
    rank = ranks[-1] or large.rank
    return Extent(rows * large.rows, columns * large.columns, rank)


def _glora(shapes: Shapes) -> Extent:
    if is_old_glora(shapes):
        rank = _same("the ranks of b1 and b2", shapes["b1"][0], shapes["b2"][1])
        return Extent(shapes["b2"][0], _rest(shapes, "b1"), rank)
    if "bm" in shapes:
        columns = _side(shapes, "b2", 1) * _rest(shapes, "bm", 2)
    else:
        columns = _rest(shapes, "b2")
    rank = _same("the ranks of b1 and b2", _side(shapes, "b1", 1), shapes["b2"][0])
    _same("the ranks of a1 and a2", _side(shapes, "a1", 1), shapes["a2"][0])
    _same("the inputs of a1 and a2", shapes["a1"][0], _side(shapes, "a2", 1))
    return Extent(shapes["b1"][0], columns, rank)


def check_magnitude(shapes: Shapes, extent: Extent) -> None:
    """Refuse DoRA's lengths where they are neither of the rows nor of the columns.

    Raises:
        WrongShapes: They fit neither.
    """
    for role in (DORA, MAGNITUDE):
        if role not in shapes:
            continue
        n_values = prod(shapes[role])
        is_of_columns = role == DORA and shapes[role][:1] == (1,)
        if is_of_columns and n_values and not extent.columns % n_values:
            continue
        if n_values != extent.rows:
            raise WrongShapes(f"{role} is {list(shapes[role])}")


def is_old_glora(shapes: Shapes) -> bool:
    """Whether a and b are stored the other way round, as the first trainers did.

    The new form has a1 [inputs, rank] and a2 [rank, inputs]; the old one the reverse.
    """
    sides = [_side(shapes, role, axis) for role in ("a1", "b1") for axis in (0, 1)]
    a_low, a_high, b_low, b_high = sides
    return a_low < a_high and b_low < b_high and a_low == b_low


def _oft(shapes: Shapes) -> Extent:
    *_, n_blocks, one, other = shapes["oft_blocks"]
    _same("the sides of a block", one, other)
    return Extent(n_blocks * one, 0, one)


def _difference(role: str) -> Callable[[Shapes], Extent]:
    def extent(shapes: Shapes) -> Extent:
        return Extent(_side(shapes, role, 0), _rest(shapes, role), 0)

    return extent


@dataclass(frozen=True)
class Form:
    """The tensors of a kind.

    Attributes:
        kind: The kind.
        needed: Every one of them must be there.
        optional: These may be.
        extent: The change that they give, from their shapes.
    """

    kind: Kind
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    extent: Callable[[Shapes], Extent]


_FACTORS = ("alpha", DORA, MAGNITUDE)
_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")

FORMS: tuple[Form, ...] = (
    Form(Kind.LORA, (UP, DOWN), (MID, *_FACTORS), _lora),
    Form(Kind.LOHA, (*_HADA, "hada_t1", "hada_t2"), _FACTORS, _loha),
    Form(Kind.LOHA, _HADA, _FACTORS, _loha),
    Form(Kind.LOKR, ("lokr_w1", "lokr_w2"), _FACTORS, _lokr),
    Form(
        Kind.LOKR, ("lokr_w1", "lokr_w2_a", "lokr_w2_b"), ("lokr_t2", *_FACTORS), _lokr
    ),
    Form(Kind.LOKR, ("lokr_w1_a", "lokr_w1_b", "lokr_w2"), _FACTORS, _lokr),
    Form(
        Kind.LOKR,
        ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"),
        ("lokr_t2", *_FACTORS),
        _lokr,
    ),
    Form(Kind.GLORA, ("a1", "a2", "b1", "b2"), ("bm", "alpha"), _glora),
    Form(Kind.OFT, ("oft_blocks",), ("rescale", "alpha"), _oft),
    Form(Kind.FULL, ("diff",), ("alpha",), _difference("diff")),
    Form(Kind.NORM, ("w_norm",), ("alpha",), _difference("w_norm")),
)
"""A module is of the first form whose needed tensors it has."""

BIAS_ROLES = ("diff_b", "b_norm")
"""What changes a module's bias, whatever its weight's kind."""
