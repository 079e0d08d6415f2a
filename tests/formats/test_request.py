"""Requests with a base, further methods and parts of other models, as recipes."""

from __future__ import annotations

import pytest

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import (
    DEFAULT_COMPONENTS,
    MergeNode,
    ModelNode,
    Pick,
    Recipe,
    SelectNode,
    Setting,
    simple_recipe,
)
from lib_merge.errors import RecipeError, UnknownIdError
from lib_merge.formats.request import (
    BLENDABLE,
    MergeRequest,
    Part,
    Step,
    Take,
    recipe_of_request,
)
from lib_merge.formats.step_text import StepReader, Steps
from tests.formats.doubles import lone, pair, plain, shaped, triple, voted

DOUBLES = {m.id: m for m in (lone, pair, plain, shaped, triple, voted)}
TEXT = (BlockId("CLIP_L"), BlockId("CLIP_G"))
VAE = (BlockId("VAE"),)


def _find(name):
    if name not in DOUBLES:
        raise UnknownIdError(f"Unknown merge method '{name}'.")
    return DOUBLES[name]


def _recipe(main, *models, **fields):
    return recipe_of_request(MergeRequest(Step(main), models, **fields))


def test_a_plain_request_is_the_simple_recipe():
    settings = (("alpha", Setting(0.3)),)
    request = MergeRequest(Step(pair, settings), ("a", "b"))
    expected = simple_recipe("pair", ("a", "b"), dict(settings), keep_ema=True)
    assert recipe_of_request(request, keep_ema=True) == expected


def test_a_base_stands_first_however_it_is_given():
    expected = simple_recipe("voted", ("base", "a", "b"))
    assert _recipe(voted, "base", "a", "b") == expected
    assert _recipe(voted, "a", "b", base="base") == expected


def test_pool_is_counted_without_the_base():
    assert MergeRequest(Step(voted), ("base", "a", "b")).n_pool == 2
    assert MergeRequest(Step(voted), ("a", "b"), base="base").n_pool == 2
    assert MergeRequest(Step(plain), ("a", "b")).n_pool == 2
    assert MergeRequest(Step(pair), ("a", "b")).n_pool == 0


def test_a_part_without_base_works_on_the_models_alone():
    found = _recipe(voted, "base", "a", "b", parts=(Part(TEXT, Step(plain)),))
    assert found == Recipe(
        (
            *(ModelNode(name) for name in ("base", "a", "b")),
            MergeNode("voted", (0, 1, 2), (), DEFAULT_COMPONENTS),
            MergeNode("plain", (1, 2), (), BLENDABLE),
            SelectNode((3, 4), (Pick(1, TEXT),)),
        )
    )


def test_a_part_with_base_takes_the_one_that_is_named():
    found = _recipe(plain, "a", "b", base="base", parts=(Part(TEXT, Step(voted)),))
    assert found.nodes[2:] == (
        ModelNode("base"),
        MergeNode("plain", (0, 1)),
        MergeNode("voted", (2, 0, 1), (), BLENDABLE),
        SelectNode((3, 4), (Pick(1, TEXT),)),
    )
    assert found.first_model() == 0


def test_blocks_of_another_model_win_over_parts():
    takes = (Take(VAE, "other"), Take(TEXT, "a"))
    found = _recipe(pair, "a", "b", parts=(Part(VAE, Step(plain)),), takes=takes)
    assert found.nodes[2:] == (
        MergeNode("pair", (0, 1)),
        MergeNode("plain", (0, 1), (), BLENDABLE),
        ModelNode("other"),
        SelectNode((2, 3, 4, 0), (Pick(1, VAE), Pick(2, VAE), Pick(3, TEXT))),
    )
    assert Recipe.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("step", "inputs"),
    [(shaped, (0, 3)), (pair, (0, 3)), (lone, (3,))],
    ids=["on the base", "two models", "one model"],
)
def test_a_method_follows_on_the_result(step, inputs):
    found = _recipe(voted, "base", "a", "b", then=(Step(step),))
    assert found.nodes[4] == MergeNode(step.id, inputs)


def test_parts_are_not_followed():
    unet = (Component.UNET,)
    found = _recipe(
        *(voted, "base", "a"),
        then=(Step(shaped),),
        parts=(Part(TEXT, Step(plain)),),
        components=unet,
    )
    assert found.nodes[2:] == (
        MergeNode("voted", (0, 1), (), unet),
        MergeNode("shaped", (0, 2), (), unet),
        MergeNode("plain", (1,), (), BLENDABLE),
        SelectNode((3, 4), (Pick(1, TEXT),)),
    )


@pytest.mark.parametrize(
    ("main", "fields", "problem"),
    [
        (plain, {"base": "base"}, "takes no base; leave 'base' out"),
        (plain, {"parts": (Part(TEXT, Step(voted)),)}, "no base is given"),
        (plain, {"then": (Step(shaped),)}, "no base is given"),
        (plain, {"then": (Step(triple),)}, "cannot follow another method"),
    ],
)
def test_a_request_names_what_is_wrong(main, fields, problem):
    with pytest.raises(RecipeError, match=problem):
        _recipe(main, "a", "b", **fields)


def _steps(text, arch=None):
    reader = StepReader(_find, {"good": "/models/good"}.get, arch)
    problems: list[str] = []
    return reader.steps(text.splitlines(), "Step", problems), problems


def test_steps_are_read_one_a_line():
    text = """# comments and empty lines are skipped

    clip_l, CLIP_G : plain
    M00:pair:alpha=0.3
    VAE = good
    then : shaped : alpha=0.8
    """
    found, problems = _steps(text)
    assert problems == []
    assert found == Steps(
        then=(Step(shaped, (("alpha", Setting(0.8)),)),),
        parts=(
            Part(TEXT, Step(plain)),
            Part((BlockId("M00"),), Step(pair, (("alpha", Setting(0.3)),))),
        ),
        takes=(Take(VAE, "/models/good"),),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("CLIP_L", "names no method"),
        ("CLIP_L:", "names no method"),
        (":plain", "no block or component is named"),
        ("CLIP_L:plane", "Unknown merge method 'plane'"),
        ("M00:pair:beta=1", "no parameter 'beta'"),
        ("VAE=", "names no model"),
        ("VAE=bad", "no model 'bad' in the list"),
        ("IN99:plain", "no block or component 'IN99'"),
        ("then:", "Unknown merge method ''"),
    ],
)
def test_steps_name_what_is_wrong(line, problem):
    from lib_merge.arch import architectures

    problems = _steps(line, architectures().get("sd1"))[1]
    assert len(problems) == 1
    assert problem in problems[0]
    assert problems[0].startswith("Step 1: ")
