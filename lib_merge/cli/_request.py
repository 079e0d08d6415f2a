"""`merge`'s words and options as a request: what is merged, by what, and how."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lib_merge.cli import _common, _recipe_input
from lib_merge.core.dtypes import COMPUTE_DTYPES, DType
from lib_merge.core.method import MergeMethod
from lib_merge.core.recipe import NonFinite, Recipe, Setting
from lib_merge.errors import InputError, RecipeError
from lib_merge.formats.block_text import Scope, read_blocks, read_rules, settings_of
from lib_merge.formats.lora_text import MARK, read_lora_text
from lib_merge.formats.request import (
    Lora,
    MergeRequest,
    Step,
    recipe_of_baking,
    recipe_of_request,
)
from lib_merge.formats.step_text import StepReader
from lib_merge.formats.value_text import read_each, read_values
from lib_merge.methods import methods

_OF_RECIPE = (
    *("words", "base", "pool_from", "set", "weights", "blocks", "rule"),
    *("then", "part", "take", "components", "lora"),
)
"""Options that a recipe speaks of itself."""


def add_models(parser: argparse.ArgumentParser) -> None:
    """Declare what is merged."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="METHOD A B",
        help="a method and its models, any number where it takes a pool; the base "
        "first where it works on deltas. lora:FILE or lora:FILE:0.8 stands for the "
        "base (or the first model) with a LoRA. One model alone with --lora is baked",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        help="a recipe of MergeLab or another program (see `recipe`), or a merged file "
        "to repeat",
    )
    parser.add_argument(
        "--base",
        metavar="FILE",
        help="the model that the others were trained from, instead of as the first",
    )
    parser.add_argument(
        "--pool-from",
        action="append",
        default=[],
        type=Path,
        metavar="LIST.txt",
        help="more models, one a line; # begins a comment",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the method's settings."""
    group = parser.add_argument_group("settings of the method")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter's value, such as alpha=0.3; a choice by its name, as "
        "elect=count; weight@2=0.3 is of the second model of the pool. Several with "
        "commas between",
    )
    group.add_argument(
        "--weights",
        metavar="0.5,0.3,0.2",
        help="one number for each model of the pool, in order",
    )
    group.add_argument(
        "--blocks",
        action="append",
        default=[],
        metavar="IN04=0.7,M00=0.1",
        help="values by block, range (IN04-IN07) or BASE, the text encoders, of the "
        'first parameter per block; "density:IN04=0.7" names another one',
    )
    group.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="BLOCKS:PATTERN:VALUE",
        help='a value for matching keys, as "OUT03-OUT06:attn:0.4", or '
        '"density@OUT03-OUT06:attn:0.4" for another parameter than the first; the '
        "last one that matches wins",
    )


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Declare further methods, and what comes from other models."""
    group = parser.add_argument_group("more than one method")
    group.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="METHOD:SETTINGS",
        help='a method on what the first one gave, as "iso_z:z=0.8"; where it takes '
        "two models, base (or A) is the first of them",
    )
    group.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="BLOCKS:METHOD:SETTINGS",
        help='another method for some blocks or components, as "CLIP_L,CLIP_G:'
        'uniform_soup" or "M00:weighted_sum:alpha=0.3"; over the same models, without '
        "the base where the method has none",
    )
    group.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="BLOCKS=FILE",
        help='blocks or components of another model, as "VAE=good.safetensors"',
    )
    group.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE:STRENGTH:BLOCKS",
        help='a LoRA baked into the result, as "style.safetensors", '
        '"style.safetensors:0.8" or "style.safetensors:0.8:BASE=0.4,IN04-IN07=1" '
        "(BASE: the text encoders)",
    )


def add_values(parser: argparse.ArgumentParser) -> None:
    """Declare what is blended, and in which types."""
    group = parser.add_argument_group("what is computed")
    group.add_argument(
        "--components",
        help="what is blended, e.g. unet,text or all; the rest is taken from the first "
        "model",
    )
    group.add_argument(
        "--precision",
        help=f"compute in {' or '.join(d.torch_name for d in COMPUTE_DTYPES)}",
    )
    group.add_argument(
        "--save-dtype", help="float16, bfloat16, float32, float64, fp8 ... or keep"
    )
    group.add_argument(
        "--keep-ema", action="store_true", help="keep EMA weights of the first model"
    )
    group.add_argument(
        "--missing-ok",
        action="store_true",
        help="keys that a later model lacks are no error: a pool does without it "
        "there, other methods take the first model's",
    )
    group.add_argument(
        "--non-finite",
        choices=[choice.value for choice in NonFinite],
        help="where a model itself holds NaN or infinity: stop with an error (the "
        "default), leave that model out of the pool for that key, or keep the values",
    )


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that the command line stands for.

    Raises:
        InputError: Every fault of the options at once.
    """
    if args.recipe is not None:
        given = [_option(name) for name in _OF_RECIPE if getattr(args, name)]
        if given:
            raise InputError(
                f"--recipe says everything itself; leave out {', '.join(given)}."
            )
        recipe = _recipe_input.load_recipe(args, args.recipe, args.models)
        return _with_types(recipe, args)
    if not args.words:
        raise InputError(
            "Nothing to merge; give METHOD A B ... --out O, or --recipe R.json --out O."
        )
    if args.lora and len(args.words) == 1 and args.words[0] not in methods():
        return _with_types(_baking(args), args)
    return _with_types(recipe_of_request(_request(args)), args)


def _baking(args: argparse.Namespace) -> Recipe:
    """One model with LoRAs and nothing else."""
    others = [n for n in _OF_RECIPE if n not in ("words", "lora") and getattr(args, n)]
    problems = [
        f"{_option(name)} is of a method, but only '{args.words[0]}' with --lora is "
        "given; leave it out, or name a method."
        for name in others
    ]
    loras = _loras(args.lora, "--lora", problems)
    if problems:
        raise RecipeError(problems)
    return recipe_of_baking(args.words[0], loras)


def _loras(texts: Sequence[str], where: str, problems: list[str]) -> tuple[Lora, ...]:
    found = (read_lora_text(text, where, problems) for text in texts)
    return tuple(lora for lora in found if lora is not None)


def _model(name: str, problems: list[str]) -> str | Lora:
    """A word of the command line: a file, or a LoRA."""
    if not name.startswith(MARK):
        return name
    lora = read_lora_text(name[len(MARK) :], name, problems)
    return name if lora is None else lora


def _option(name: str) -> str:
    return name if name == "words" else f"--{name.replace('_', '-')}"


def _request(args: argparse.Namespace) -> MergeRequest:
    method = methods().get(args.words[0])
    listed = [name for path in args.pool_from for name in _common.read_model_list(path)]
    problems: list[str] = []
    reader = StepReader(methods().get, path_of=lambda name: name)
    models = tuple(_model(name, problems) for name in (*args.words[1:], *listed))
    bare = MergeRequest(Step(method), models, args.base)
    request = MergeRequest(
        main=Step(method, _settings(args, method, bare.n_pool, problems)),
        models=bare.models,
        base=args.base,
        components=_common.parse_components(args.components),
        then=tuple(s for t in args.then for s in reader.step(t, "--then", problems)),
        parts=tuple(p for t in args.part for p in reader.part(t, "--part", problems)),
        takes=tuple(k for t in args.take for k in reader.take(t, "--take", problems)),
        loras=_loras(args.lora, "--lora", problems),
    )
    if problems:
        raise RecipeError(problems)
    return request


def _settings(
    args: argparse.Namespace, method: MergeMethod, n_pool: int, problems: list[str]
) -> tuple[tuple[str, Setting], ...]:
    scope = Scope(method)
    values = read_values(args.set, method, "--set", problems)
    if args.weights:
        each = read_each(args.weights, method, n_pool, "--weights", problems)
        doubled = [name for name in each if name in values]
        if doubled:
            problems.append(f"--weights and --set both give {doubled[0]}; leave one.")
        values |= each
    blocks = read_blocks(args.blocks, scope, "--blocks", problems)
    rules = read_rules(args.rule, scope, "--rule", problems)
    return tuple(settings_of(values, blocks, rules, method).items())


def _with_types(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with the types and switches that the command line names."""
    from dataclasses import replace

    changes: dict[str, object] = {}
    if args.precision:
        changes["compute_dtype"] = DType.from_name(args.precision)
    if args.save_dtype:
        is_keep = args.save_dtype.lower() == "keep"
        changes["save_dtype"] = None if is_keep else DType.from_name(args.save_dtype)
    if args.keep_ema:
        changes["keep_ema"] = True
    if args.missing_ok:
        changes["is_missing_ok"] = True
    if args.non_finite:
        changes["on_non_finite"] = NonFinite(args.non_finite)
    return replace(recipe, **changes)  # type: ignore[arg-type]
