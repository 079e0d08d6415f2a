"""The search space, the start vector and the scorers as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_merge.arch import architectures
from lib_merge.autombw.axes import SearchedSpace
from lib_merge.autombw.scoring import Judge
from lib_merge.autombw.settings import StudySettings
from lib_merge.autombw.space import Point, Space
from lib_merge.core.block_orders import CSV_ORDER, RECIPE_TXT_ORDER
from lib_merge.errors import MergeError, RecipeError
from lib_merge.formats.orders import ORDERS, Order
from lib_merge.methods import methods
from lib_merge.ui.study_choices import ALONE, GROUPS, ORDER_TITLES, TIES
from lib_merge.ui.study_judges import read_judges
from lib_merge.ui.study_space import groups_of, searched, text_start
from tests.support.fake_study_host import fake_settings

SD1 = architectures().get("sd1")
SUM = methods().get("weighted_sum")


def space_of(
    *groups: str, ties: str = ALONE, text: str = "", arch_id: str = "sd1"
) -> SearchedSpace:
    """What is searched; without groups, all of them."""
    return searched(
        groups or GROUPS,
        ties,
        text,
        method=SUM,
        arch=architectures().get(arch_id),
    )


def test_unticked_groups_stay_with_a_and_text_bounds_blocks() -> None:
    found = space_of("IN", "OUT", text="IN00-IN01=0.2..0.8, M00=0.5")
    limits = {str(r.block): (r.low, r.high) for r in found.ranges}
    assert limits["IN01"] == (0.2, 0.8)
    assert limits["IN02"] == (0.0, 1.0)
    assert limits["M00"] == (0.5, 0.5)
    assert limits["CLIP_L"] == limits["TIME_EMBED"] == limits["OUT"] == (0.0, 0.0)
    assert limits["OUT11"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("ties", "n_axes", "block", "axis"),
    [
        (ALONE, 28, "IN03", "IN03"),
        (list(TIES)[1], 16, "OUT08", "IN03+OUT08"),
        (list(TIES)[2], 6, "IN03", "IN side"),
    ],
    ids=["alone", "mirrored", "sides"],
)
def test_presets_tie_blocks(ties: str, n_axes: int, block: str, axis: str) -> None:
    found = space_of(ties=ties)
    assert len(Space(found.ranges).axes) == n_axes
    assert next(r.name for r in found.ranges if r.block == block) == axis


def test_ties_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RecipeError, match="tick both IN and OUT"):
        space_of("IN", ties="IN and OUT mirrored")
    with pytest.raises(RecipeError, match="has no IN and OUT blocks"):
        space_of(ties="IN and OUT mirrored", arch_id="flux")
    with pytest.raises(RecipeError, match="'IN99' is no block"):
        space_of(text="IN99=0.5")


def settings_with(ties: str = ALONE, arch_id: str = "sd1") -> StudySettings:
    """A study over every block."""
    found = space_of(ties=ties, arch_id=arch_id)
    return replace(fake_settings(arch_id=arch_id), ranges=found.ranges)


def start(text: str, order: str | None = None, arch_id: str = "sd1") -> Point:
    """A start vector over every block."""
    arch = architectures().get(arch_id)
    return text_start(text, order, settings_with(arch_id=arch_id), arch).point


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
def test_every_offered_order_is_read(order: Order) -> None:
    arch = "sdxl" if order.is_sdxl else "sd1"
    found = start(" ".join(["0.25"] * len(order.labels)), order.id, arch)
    assert found["M00"] == 0.25
    assert order.id in ORDER_TITLES.values()


def test_start_vector_of_tied_blocks_is_their_mean() -> None:
    settings = settings_with("IN and OUT mirrored")
    found = text_start("IN00=0.2, OUT11=0.4", None, settings, SD1)
    assert found.point["IN00+OUT11"] == pytest.approx(0.3)


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
