"""The search space, the start vector and the scorers as text."""

from __future__ import annotations

import pytest

from lib_merge.arch import architectures
from lib_merge.autombw.scoring import Judge
from lib_merge.autombw.space import BlockRange, Space
from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER
from lib_merge.core.blocks import BlockId
from lib_merge.errors import MergeError, RecipeError
from lib_merge.formats.orders import ORDERS
from lib_merge.methods import methods
from lib_merge.ui.study_choices import (
    ALONE,
    BY_PART,
    GROUPS,
    MIRRORED,
    ORDER_TITLES,
    PAIRED,
)
from lib_merge.ui.study_judges import read_judges
from lib_merge.ui.study_space import groups_of, read_axes, read_ranges, read_start, tied

SD1 = architectures().get("sd1")
SUM = methods().get("weighted_sum")


def free(arch_id: str = "sd1") -> tuple[BlockRange, ...]:
    """Every block of an architecture, free."""
    spec = SUM.block_param
    assert spec is not None
    return read_ranges(GROUPS, "", architectures().get(arch_id), spec)


@pytest.mark.parametrize(
    ("arch_id", "preset", "n_axes", "block", "axis"),
    [
        ("sd1", ALONE, 28, "IN03", "IN03"),
        ("sd1", MIRRORED, 16, "OUT08", "IN03+OUT08"),
        ("sdxl", MIRRORED, 15, "OUT08", "IN00+OUT08"),
        ("sd1", PAIRED, 16, "IN03", "IN02+03"),
        ("sd1", BY_PART, 6, "IN03", "IN*"),
        ("sd3_medium", PAIRED, 21, "JOINT03", "JOINT02+03"),
    ],
    ids=["alone", "mirrored", "mirrored-sdxl", "paired", "by-part", "paired-sd3"],
)
def test_presets_tie_blocks(
    arch_id: str, preset: str, n_axes: int, block: str, axis: str
) -> None:
    ranges = tied(free(arch_id), preset, "", architectures().get(arch_id))
    space = Space(ranges)
    assert len(space.axes) == n_axes
    assert next(r.name for r in ranges if r.block == block) == axis


def test_blocks_of_other_limits_are_not_tied_by_a_preset() -> None:
    spec = SUM.block_param
    assert spec is not None
    ranges = read_ranges(GROUPS, "IN00=0..0.5", SD1, spec)
    names = {str(r.block): r.name for r in tied(ranges, MIRRORED, "", SD1)}
    assert names["IN00"] == "IN00"
    assert names["IN01"] == names["OUT10"] == "IN01+OUT10"


def test_typed_ties_win_over_the_preset() -> None:
    ranges = tied(free(), BY_PART, "early = IN00-IN02, M00\nlate=OUT11+OUT10", SD1)
    names = {str(r.block): r.name for r in ranges}
    assert {names[b] for b in ("IN00", "IN02", "M00")} == {"early"}
    assert names["OUT11"] == "late"
    assert names["IN03"] == "IN*"
    with pytest.raises(RecipeError, match=r"Ties: 'x=IN99' cannot be read"):
        tied(free(), ALONE, "x=IN99", SD1)


def test_axes_of_numbers_choices_keys_and_methods_are_read() -> None:
    method = methods().get("triple_sum")
    text = "beta=0..1, beta@IN00-IN05=0.2..0.8; alpha:attn=0..0.5"
    axes, chosen = read_axes(text, method, SD1)
    assert chosen == ()
    whole, some, attention = axes
    assert (whole.name, whole.param, whole.low, whole.high) == ("beta", "beta", 0, 1)
    spec = method.param("beta")
    assert spec is not None
    assert whole.default == spec.default
    assert (some.low, some.high, len(some.blocks)) == (0.2, 0.8, 6)
    assert (attention.pattern, attention.default) == ("attn", None)
    axes, chosen = read_axes("method = weighted_sum | slerp", SUM, SD1)
    assert chosen == ("weighted_sum", "slerp")
    assert axes[0].choices == chosen
    method = methods().get("comparative_interpolation")
    (axis,), _ = read_axes("favour=all", method, SD1)
    assert axis.choices == ("similarity", "difference") or len(axis.choices) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma=0..1", "weighted_sum has no parameter 'gamma'; it has: alpha"),
        ("alpha=2..1", "must lie, in rising order"),
        ("alpha@IN77=0..1", "has no blocks 'IN77'"),
        ("what", "cannot be read; write it like"),
        ("method=slerp2", "slerp2"),
        ("method=uniform_soup", "takes other models"),
        ("method=weighted_sum", "names one choice only"),
    ],
    ids=["param", "range", "blocks", "grammar", "unknown", "pool", "one"],
)
def test_wrong_axis_is_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_axes(text, SUM, SD1)


def start(
    text: str, order: str | None = None, arch_id: str = "sd1"
) -> dict[str, float]:
    """A start vector over every block."""
    space = Space(free(arch_id))
    return read_start(text, order, space, SUM, architectures().get(arch_id))


def test_start_vector_lands_on_the_same_blocks_in_every_order_of_27() -> None:
    values = {str(block): i / 100 for i, block in enumerate(CSV_ORDER)}
    as_csv = ",".join(str(values[b]) for b in CSV_ORDER)
    as_txt = " ".join(str(values[b]) for b in RECIPE_TXT_ORDER)
    one, two = start(as_csv, "autombw_csv"), start(as_txt, "autombw_recipe")
    assert one == two
    assert {name: one[name] for name in values} == values
    assert one["CLIP_L"] == 0.0
    named = ", ".join(f"{name}={value}" for name, value in values.items())
    assert start(named) == {**one, "CLIP_L": 0.5}
    with pytest.raises(RecipeError, match=r"27 block weights come in 3 orders"):
        start(as_csv)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.id)
def test_every_offered_order_is_read(order: object) -> None:
    arch = "sdxl" if getattr(order, "is_sdxl", False) else "sd1"
    numbers = " ".join(["0.25"] * len(getattr(order, "labels", ())))
    order_id = str(getattr(order, "id", ""))
    found = start(numbers, order_id, arch)
    assert found["M00"] == 0.25
    assert order_id in ORDER_TITLES.values()


def test_start_vector_of_tied_blocks_is_their_mean() -> None:
    space = Space(tied(free(), MIRRORED, "", SD1))
    found = read_start("IN00=0.2, OUT11=0.4", None, space, SUM, SD1)
    assert found["IN00+OUT11"] == pytest.approx(0.3)


def test_groups_are_those_of_the_architecture() -> None:
    assert groups_of(SD1) == [g for g in GROUPS if g != "Transformer blocks"]
    assert groups_of(architectures().get("flux")) == [
        "Text encoders",
        "Embeddings",
        "Transformer blocks",
        "Output layer",
    ]


def test_scorers_get_weights_files_and_options() -> None:
    lines = "pickscore: weight=0.5, file=/x/y.bin\nperson: pairs=5"
    found = read_judges(("image_reward", "pickscore", "person"), lines)
    assert found == (
        Judge("image_reward"),
        Judge("pickscore", 0.5, "/x/y.bin"),
        Judge("person", options=(("pairs", "5"),)),
    )


@pytest.mark.parametrize(
    ("scorers", "lines", "message"),
    [
        ((), "", "No scorer is chosen"),
        (("a",), "b: weight=1", "'b' is not among those chosen"),
        (("a",), "nonsense", "'nonsense' cannot be read"),
        (("a",), "a: weight=much", "could not convert"),
        (("a",), "a: weight", "is no pair"),
    ],
    ids=["none", "other", "grammar", "number", "pair"],
)
def test_wrong_scorer_lines_are_named(
    scorers: tuple[str, ...], lines: str, message: str
) -> None:
    with pytest.raises(MergeError, match=message):
        read_judges(scorers, lines)


def test_single_blocks_take_their_own_limit() -> None:
    spec = SUM.block_param
    assert spec is not None
    found = {
        r.block: (r.low, r.high) for r in read_ranges(("M",), "M00=0.4", SD1, spec)
    }
    assert found[BlockId("M00")] == (0.4, 0.4)
    assert found[BlockId("IN00")] == (0.0, 0.0)
