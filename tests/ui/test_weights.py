"""Block weights and rules as text."""

from __future__ import annotations

import pytest

from lib_merge.arch import architectures
from lib_merge.core.blocks import BlockId
from lib_merge.core.params import ParamSpec
from lib_merge.core.recipe import Rule
from lib_merge.errors import RecipeError
from lib_merge.methods import methods
from lib_merge.ui.weights import read_rules, read_weights, write_weights

SD1 = architectures().get("sd1")
SDXL = architectures().get("sdxl")


@pytest.fixture
def alpha() -> ParamSpec:
    """weighted_sum's alpha, from -1 to 2."""
    spec = methods().get("weighted_sum").param("alpha")
    assert spec is not None
    return spec


def test_weights_are_read_in_order_of_the_architecture(alpha: ParamSpec) -> None:
    values = read_weights(" M00 = 0.1 ,in04=0.7\nOUT11: 1", SD1, alpha)
    assert list(values.items()) == [("IN04", 0.7), ("M00", 0.1), ("OUT11", 1.0)]


def test_weights_expand_ranges_and_base(alpha: ParamSpec) -> None:
    values = read_weights("IN00-IN02=0.2; BASE=0", SDXL, alpha)
    assert values == {
        "CLIP_L": 0.0,
        "CLIP_G": 0.0,
        "IN00": 0.2,
        "IN01": 0.2,
        "IN02": 0.2,
    }


def test_weights_come_back_equal_when_written_and_read(alpha: ParamSpec) -> None:
    values = {BlockId("IN04"): 0.123456, BlockId("OUT"): -0.5}
    assert read_weights(write_weights(values), SD1, alpha) == values


def test_empty_text_gives_no_weights(alpha: ParamSpec) -> None:
    assert read_weights(" \n, ;", SD1, alpha) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("IN99=0.5", "no block 'IN99'"),
        ("IN04", "is no pair; write it like IN04=0.7"),
        ("IN04=much", "'much' is no number"),
        ("IN04=nan", "'nan' is no number"),
        ("IN04=3", "outside -1 to 2"),
    ],
    ids=["unknown block", "no pair", "word", "nan", "out of range"],
)
def test_weights_name_what_is_wrong(text: str, problem: str, alpha: ParamSpec) -> None:
    with pytest.raises(RecipeError, match=problem):
        read_weights(text, SD1, alpha)


def test_every_bad_pair_is_reported_at_once(alpha: ParamSpec) -> None:
    with pytest.raises(RecipeError, match="IN99") as caught:
        read_weights("IN99=1, M00=x, IN01=9", SD1, alpha)
    assert len(caught.value.problems) == 3


def test_rules_are_read_one_a_line(alpha: ParamSpec) -> None:
    text = "# a comment\nOUT03-OUT04:attn:0.4\n\n : attn2.to_k : 1\nIN00 M00::0"
    assert read_rules(text, SD1, alpha) == (
        Rule(0.4, (BlockId("OUT03"), BlockId("OUT04")), "attn"),
        Rule(1.0, (), "attn2.to_k"),
        Rule(0.0, (BlockId("IN00"), BlockId("M00")), ""),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("OUT03:0.4", "lacks a field"),
        ("OUT99:attn:0.4", "no block 'OUT99'"),
        ("OUT03:att[n:0.4", "no regular expression"),
        ("OUT03:attn:x", "'x' is no number"),
        ("OUT03:attn:5", "outside -1 to 2"),
    ],
    ids=["two fields", "unknown block", "bad pattern", "no number", "out of range"],
)
def test_rules_name_what_is_wrong(line: str, problem: str, alpha: ParamSpec) -> None:
    with pytest.raises(RecipeError, match=problem):
        read_rules(line, SD1, alpha)
