"""Values, block weights and rules as text."""

from __future__ import annotations

import pytest

from lib_merge.arch import architectures
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Rule, Setting
from lib_merge.formats.block_text import (
    BlockValue,
    NamedRule,
    Scope,
    expand_blocks,
    read_blocks,
    read_rules,
    settings_of,
    write_blocks,
)
from lib_merge.formats.value_text import read_each, read_values
from lib_merge.methods import methods
from tests.formats.doubles import pair, plain, pooled, voted

SD1 = architectures().get("sd1")
SDXL = architectures().get("sdxl")
WEIGHTED_SUM = methods().get("weighted_sum")


def _blocks(text, method=WEIGHTED_SUM, arch=SD1):
    problems: list[str] = []
    found = read_blocks([text], Scope(method, arch), "Blocks", problems)
    return found, problems


def _rules(text, method=WEIGHTED_SUM, arch=SD1):
    problems: list[str] = []
    found = read_rules(text.splitlines(), Scope(method, arch), "Rule", problems)
    return found, problems


def test_values_take_numbers_choices_and_single_models():
    problems: list[str] = []
    texts = ["elect=count, density=0.25", "weight@2=0.3; seed=7"]
    found = read_values(texts, voted, "--set", problems)
    assert found == {"elect": 1.0, "density": 0.25, "weight@2": 0.3, "seed": 7.0}
    assert problems == []


def test_values_take_a_choice_by_its_number_too():
    assert read_values(["elect=1"], voted, "--set", []) == {"elect": 1.0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("elect=most", "'most' is no choice of elect; use one of: sum, count"),
        ("elect=2", "is no choice; use one of: sum, count"),
        ("density=lots", "'lots' is no number"),
        ("density=nan", "'nan' is no number"),
        ("density=2", "outside 0 to 1"),
        ("seed=0.5", "must be a whole number"),
        ("alpha=0.5", "voted has no parameter 'alpha'; it has: elect, density, lam"),
        ("weight@0=1", "no parameter 'weight@0'"),
        ("density", "is no NAME=VALUE pair"),
        ("lam=1,lam=0", "lam is given twice"),
    ],
)
def test_values_name_what_is_wrong(text, problem):
    problems: list[str] = []
    read_values([text], voted, "--set", problems)
    assert len(problems) == 1
    assert problem in problems[0]


def test_one_number_a_model_is_read_in_order():
    found = read_each("0.5, 0.3 0.2", pooled, 3, "--weights", [])
    assert found == {"weight@1": 0.5, "weight@2": 0.3, "weight@3": 0.2}


@pytest.mark.parametrize(
    ("text", "method", "problem"),
    [
        ("0.5, 0.5", pooled, "2 numbers for 3 models"),
        ("1", pooled, "1 number for 3 models"),
        ("1, 2, x", pooled, "number 3: 'x' is no number"),
        ("1, 2, 10", pooled, "outside 0 to 9"),
        ("1, 2, 3", plain, "plain has no number for each model"),
    ],
)
def test_numbers_a_model_name_what_is_wrong(text, method, problem):
    problems: list[str] = []
    read_each(text, method, 3, "--weights", problems)
    assert len(problems) == 1
    assert problem in problems[0]


def test_blocks_are_of_the_main_parameter_until_one_is_named():
    text = "IN04=0.7, M00: 0.1; density: in00-in05=0.2\nweight@2:BASE=3, OUT=1"
    found, problems = _blocks(text, voted)
    assert problems == []
    assert found == [
        BlockValue("density", "IN04", 0.7),
        BlockValue("density", "M00", 0.1),
        BlockValue("density", "IN00-IN05", 0.2),
        BlockValue("weight@2", "BASE", 3.0),
        BlockValue("weight@2", "OUT", 1.0),
    ]


def test_blocks_are_not_checked_without_an_architecture():
    found, problems = _blocks("IN99=1", arch=None)
    assert (found, problems) == ([BlockValue("alpha", "IN99", 1.0)], [])


@pytest.mark.parametrize(
    ("text", "method", "problem"),
    [
        ("IN99=0.5", pair, "no block 'IN99'"),
        ("IN04", pair, "is no pair; write it like IN04=0.7"),
        ("IN04=much", pair, "'much' is no number"),
        ("IN04=nan", pair, "'nan' is no number"),
        ("IN04=3", pair, "outside 0 to 1"),
        ("IN04=1, in04=0", pair, "IN04 is given twice"),
        ("beta:IN04=1, M00=1", pair, "pair has no parameter 'beta' that may differ"),
        ("elect:IN04=count", voted, "no parameter 'elect' that may differ per block"),
        ("IN04=1", plain, "sets a parameter per block, but plain has none"),
        ("IN04=1", pooled, "write e.g. weight@1:IN04=0.5"),
    ],
)
def test_blocks_name_what_is_wrong(text, method, problem):
    problems = _blocks(text, method)[1]
    assert len(problems) == 1
    assert problem in problems[0]


def test_every_bad_pair_is_reported_at_once():
    assert len(_blocks("IN99=1, M00=x, IN01=9")[1]) == 3


def test_empty_text_gives_no_blocks():
    assert _blocks(" \n, ;") == ([], [])


def test_single_blocks_win_over_ranges_whatever_the_order():
    pairs = [("IN01", 0.9), ("IN00-IN02", 0.2), ("BASE", 0.0)]
    assert expand_blocks(pairs, SDXL) == {
        "CLIP_L": 0.0,
        "CLIP_G": 0.0,
        "IN00": 0.2,
        "IN01": 0.9,
        "IN02": 0.2,
    }


def test_blocks_come_back_equal_when_written_and_read():
    values = {BlockId("IN04"): 0.123456, BlockId("OUT"): -0.5}
    found, _ = _blocks(write_blocks(values))
    assert {b.block: b.value for b in found} == values


def test_rules_are_read_one_a_line():
    text = "# a comment\nOUT03-OUT04:attn:0.4\n\n : attn2.to_k : 1\nIN00 M00::0"
    found, problems = _rules(text)
    assert problems == []
    assert found == [
        NamedRule("alpha", Rule(0.4, (BlockId("OUT03-OUT04"),), "attn")),
        NamedRule("alpha", Rule(1.0, (), "attn2.to_k")),
        NamedRule("alpha", Rule(0.0, (BlockId("IN00"), BlockId("M00")), "")),
    ]


def test_rules_name_another_parameter_with_an_at_sign():
    text = "lam@OUT03,OUT04:attn:0.4\nweight@2@:a:b:3"
    found, problems = _rules(text, voted)
    assert problems == []
    assert found == [
        NamedRule("lam", Rule(0.4, (BlockId("OUT03"), BlockId("OUT04")), "attn")),
        NamedRule("weight@2", Rule(3.0, (), "a:b")),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("OUT03:0.4", "lacks a field; write BLOCKS:PATTERN:VALUE"),
        ("OUT99:attn:0.4", "no block 'OUT99'"),
        ("OUT03:att[n:0.4", "no regular expression"),
        ("OUT03:attn:x", "'x' is no number"),
        ("OUT03:attn:5", "outside -1 to 2"),
        ("beta@OUT03:attn:1", "no parameter 'beta' that may differ per block"),
    ],
)
def test_rules_name_what_is_wrong(line, problem):
    problems = _rules(line)[1]
    assert len(problems) == 1
    assert problem in problems[0]
    assert "Rule 1" in problems[0]


def test_settings_gather_values_blocks_and_rules_by_name():
    blocks, _ = _blocks("IN04=0.7, weight@2: M00=2", voted)
    rules, _ = _rules("lam@:attn:0.5", voted)
    found = settings_of({"elect": 1.0, "weight": 3.0}, blocks, rules, voted)
    assert found == {
        "elect": Setting(1.0),
        "weight": Setting(3.0),
        "density": Setting(0.2, ((BlockId("IN04"), 0.7),)),
        "weight@2": Setting(3.0, ((BlockId("M00"), 2.0),)),
        "lam": Setting(1.0, (), (Rule(0.5, (), "attn"),)),
    }
