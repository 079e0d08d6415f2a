"""A .mecha recipe gives the tensors that sd-mecha 1.1.8 gives, where its code is right.

Dialects (a) and (b) are older than that program can read; they are held to recipes of
(c) that say what they meant, or to their own code's formula written out here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.formats import mecha
from lib_merge.formats.orders import WHOLE
from tests.formats.mecha_runs import (
    assert_same,
    ours,
    recipe_of,
    theirs,
    write_models,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_models(path)
    return path


def c(*lines: str, n_models: int = 4) -> str:
    """A recipe of dialect (c): models &0 ..., then lines."""
    models = [
        f'model "m{i}.safetensors" model_config="sd1-ldm" merge_space="weight"'
        for i in range(n_models)
    ]
    return "\n".join(["version 0.1.0", *models, *lines])


DELTAS = (
    'merge "subtract" &1 &0',
    'merge "subtract" &2 &0',
    'merge "subtract" &3 &0',
)
BASE_IN_POOL = ('merge "subtract" &0 &0', *DELTAS)
ADDED = 'merge "add_difference" &0 &7 1.0'
FULL = " ".join(
    f"{label}={value / 40}"
    for value, label in enumerate(
        (
            "BASE",
            *(f"IN{i:02d}" for i in range(12)),
            "M00",
            *(f"OUT{i:02d}" for i in range(12)),
        )
    )
)

RECIPES = {
    "weighted_sum": c('merge "weighted_sum" &0 &1 alpha=0.3'),
    "weighted_sum_by_position": c('merge "weighted_sum" &0 &1 0.3'),
    "weighted_sum_of_all": c('merge "weighted_sum" &0 &1 1.0'),
    "weighted_sum_by_block": c(
        f"dict {FULL}",
        'literal &4 model_config="sd1-supermerger_blocks" merge_space=null',
        'merge "convert_sd1_blocks_to_ldm" &5',
        'merge "weighted_sum" &0 &1 alpha=&6',
    ),
    "chain": c(
        'merge "weighted_sum" &0 &1 0.5',
        'merge "weighted_sum" &4 &2 0.25',
        'merge "weighted_sum" &3 &5 0.75',
    ),
    "n_average": c('merge "n_average" &0 &1 &2 &3'),
    "slerp": c('merge "slerp" &0 &1 0.3'),
    "amplified": c('merge "subtract" &1 &0', 'merge "add_difference" &0 &4 alpha=2.0'),
    "add_difference": c(
        'merge "subtract" &1 &2', 'merge "add_difference" &0 &4 alpha=0.7'
    ),
    "scaled": c(
        'merge "subtract" &1 &2',
        'merge "scale" &4 alpha=0.5',
        'merge "add_difference" &0 &5 alpha=0.5',
    ),
    "sum_of_differences": c(
        'merge "subtract" &1 &0',
        'merge "subtract" &2 &0',
        'merge "weighted_sum" &4 &5 0.25',
        'merge "add_difference" &0 &6 alpha=1.0',
    ),
    "perpendicular": c(
        'merge "subtract" &0 &2',
        'merge "subtract" &1 &2',
        'merge "perpendicular_component" &4 &5',
        'merge "add_difference" &0 &6 alpha=0.8',
    ),
    "train_difference": c(
        'merge "train_difference_mask" &0 &1 &2 0.6',
        'merge "subtract" &1 &2',
        'merge "add_difference" &0 &5 &4',
    ),
    "add_opposite": c(
        'merge "add_opposite_mask" &0 &1 &2 0.6',
        'merge "subtract" &1 &2',
        'merge "add_difference" &0 &5 &4',
    ),
    "add_strict_opposite": c(
        'merge "add_strict_opposite_mask" &0 &1 &2 0.6',
        'merge "subtract" &1 &2',
        'merge "add_difference" &0 &5 &4',
    ),
    "cosine_b": c('merge "add_cosine_b" &0 &1 alpha=0.3'),
    "tensor_sum": c('merge "tensor_sum" &0 &1 width=0.5 offset=0.5'),
    "clamp": c('merge "clamp" &0 &1 &2 &3'),
    "geometric_median": c('merge "geometric_median" &0 &1 &2 &3'),
    "geometric_median_short": c(
        'merge "geometric_median" &0 &1 &2 &3 maxiter=2 eps=0.001'
    ),
    "model_stock": c(*DELTAS, 'merge "model_stock" &4 &5 &6', ADDED),
    "ties_count": c(*DELTAS, 'merge "ties_sum" &4 &5 &6 k=1.0 vote_sgn=false', ADDED),
    "ties_magnitude": c(
        *DELTAS, 'merge "ties_sum" &4 &5 &6 k=0.5 vote_sgn=true', ADDED
    ),
    "ties_defaults": c(*DELTAS, 'merge "ties_sum" &4 &5 &6', ADDED),
    "ties_count_trimmed": c(*DELTAS, 'merge "ties_sum" &4 &5 &6 k=0.5', ADDED),
    "ties_median": c(
        *DELTAS,
        'merge "ties_sum_extended" &4 &5 &6 k=1.0 vote_sgn=false apply_median=true',
        'merge "add_difference" &0 &7 0.5',
    ),
    "ties_without_stock": c(
        *DELTAS,
        'merge "ties_sum_extended" &4 &5 &6 k=0.5 vote_sgn=true apply_stock=true',
        ADDED,
    ),
    "base_in_the_pool": c(
        *BASE_IN_POOL,
        'merge "ties_sum_extended" &4 &5 &6 &7 k=1.0 vote_sgn=true apply_median=true',
        'merge "add_difference" &0 &8 1.0',
    ),
    "dropped_nothing": c(
        *DELTAS,
        'merge "ties_sum_with_dropout" &4 &5 &6 probability=0.0 rescale=true k=1.0 '
        "vote_sgn=true apply_stock=true seed=3",
        ADDED,
    ),
    "picked_vae": c(
        'merge "weighted_sum" &0 &1 0.5',
        'merge "pick_component" &2 "vae"',
        'merge "fallback" &5 &4',
    ),
    "omitted_text": c(
        'merge "weighted_sum" &0 &1 0.5',
        'merge "omit_component" &4 "clip_l"',
        'merge "fallback" &5 &3',
    ),
    "crossover": c('merge "crossover" &0 &1 alpha=0.4 tilt=0.0'),
}


OFTEN = (
    *("weighted_sum_by_block", "chain", "amplified", "add_difference", "perpendicular"),
    *("train_difference", "model_stock", "ties_defaults", "ties_magnitude"),
    *("ties_median", "base_in_the_pool", "picked_vae", "omitted_text"),
)
"""What runs always; sd-mecha takes its time for each."""


def some(names: Sequence[str], often: Sequence[str]) -> list[object]:
    """All names, those that are not run often marked as slow."""
    return [
        name if name in often else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


@pytest.mark.parametrize("name", some([*RECIPES], OFTEN))
def test_recipe_gives_the_tensors_of_sd_mecha(folder: Path, name: str) -> None:
    text = RECIPES[name]
    assert_same(ours(recipe_of(text), folder), theirs(text, folder))


def pair(method: str, alpha: Setting) -> Recipe:
    names = ("m0.safetensors", "m1.safetensors")
    return simple_recipe(method, names, {"alpha": alpha}, components=WHOLE)


WRITTEN = {
    **{
        name: recipe_of(text)
        for name, text in RECIPES.items()
        # A median of models with limits of its own is one of differences here.
        if name != "geometric_median_short"
    },
    "vae_kept": simple_recipe("uniform_soup", ("m0.safetensors", "m1.safetensors")),
    "blocks": pair(
        "weighted_sum", Setting(0.0, ((BlockId("IN11"), 0.4), (BlockId("M00"), 0.2)))
    ),
}


@pytest.mark.parametrize("name", some([*WRITTEN], ("ties_median", "vae_kept")))
def test_written_recipe_gives_the_same_tensors_in_sd_mecha(
    folder: Path, name: str
) -> None:
    recipe = WRITTEN[name]
    assert_same(ours(recipe, folder), theirs(mecha.write(recipe), folder))


def old(dialect: str, *lines: str, n_models: int = 4) -> str:
    """A recipe of dialect (a) or (b)."""
    arch = "" if dialect == "a" else ' "sd1" "base"'
    models = [f'model "m{i}.safetensors"{arch}' for i in range(n_models)]
    return "\n".join([*models, *lines])


def models(folder: Path, n_models: int = 4) -> list[dict[str, Tensor]]:
    return [load_file(folder / f"m{i}.safetensors") for i in range(n_models)]


def merged(
    folder: Path, formula: Callable[[Sequence[Tensor]], Tensor], passed: Sequence[str]
) -> dict[str, Tensor]:
    """A formula over the models' tensors; keys that begin with `passed` stay m0's."""
    loaded = models(folder)
    return {
        key: value.double()
        if key.startswith(tuple(passed))
        else formula([model[key].double() for model in loaded])
        for key, value in loaded[0].items()
    }


VAE = ("first_stage_model.",)
PASSED_A = (*VAE, "model.diffusion_model.time_embed.")


def by_count(tensors: Sequence[Tensor]) -> Tensor:
    deltas = torch.stack([t - tensors[0] for t in tensors[1:]])
    elected = torch.sign(torch.sign(deltas).sum(0))
    return tensors[0] + _mean_of(deltas, elected)


def by_magnitude(tensors: Sequence[Tensor]) -> Tensor:
    deltas = torch.stack([t - tensors[0] for t in tensors[1:]])
    return tensors[0] + _mean_of(deltas, torch.sign(deltas.sum(0)))


def _mean_of(deltas: Tensor, elected: Tensor) -> Tensor:
    agree = (torch.sign(deltas) == elected).double()
    return torch.nan_to_num((deltas * agree).sum(0) / agree.sum(0))


TIES_A = ('call "subtract" &1 &0', 'call "subtract" &2 &0', 'call "subtract" &3 &0')


def test_dialect_a_counts_signs_and_passes_time_embed_through(folder: Path) -> None:
    text = old(
        "a",
        *TIES_A,
        'call "ties_sum" &4 &5 &6 alpha=1.0 k=1.0',
        'call "add_difference" &0 &7 alpha=1.0',
    )
    assert_same(ours(recipe_of(text), folder), merged(folder, by_count, PASSED_A))


def test_dialect_a_alpha_of_ties_scales_the_difference(folder: Path) -> None:
    text = old(
        "a",
        *TIES_A,
        'call "ties_sum" &4 &5 &6 alpha=0.25 k=1.0',
        'call "add_difference" &0 &7 alpha=1.0',
    )

    def quarter(tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0] + 0.25 * (by_count(tensors) - tensors[0])

    assert_same(ours(recipe_of(text), folder), merged(folder, quarter, PASSED_A))


def test_dialect_a_default_alpha_of_add_difference_is_half(folder: Path) -> None:
    text = old("a", 'call "subtract" &1 &0', 'call "add_difference" &0 &4')
    assert_same(
        ours(recipe_of(text), folder),
        merged(folder, lambda t: (t[0] + t[1]) / 2, PASSED_A),
    )


TIES_B = ('merge "subtract" &1 &0', 'merge "subtract" &2 &0', 'merge "subtract" &3 &0')


@pytest.mark.parametrize(
    ("words", "name", "formula"),
    [
        ("k=1.0", "x-240421-feefbf4.mecha", by_count),
        ("k=1.0", "x-240425-feefbf4.mecha", by_magnitude),
        ("k=1.0 vote_sgn=1.0", "x.mecha", by_count),
        ("k=1.0 vote_sgn=0.0", "x.mecha", by_magnitude),
    ],
    ids=["before", "since", "vote_sgn_on", "vote_sgn_off"],
)
def test_dialect_b_elects_as_its_code_did_then(
    folder: Path, words: str, name: str, formula: Callable[[Sequence[Tensor]], Tensor]
) -> None:
    text = old(
        "b",
        *TIES_B,
        f'merge "ties_sum" &4 &5 &6 {words}',
        'merge "add_difference" &0 &7 alpha=1.0',
    )
    recipe = recipe_of(text, name)
    assert_same(ours(recipe, folder), merged(folder, formula, VAE))


def test_vote_sgn_means_the_opposite_in_dialects_b_and_c(folder: Path) -> None:
    in_b = old(
        "b",
        *TIES_B,
        'merge "ties_sum" &4 &5 &6 k=1.0 vote_sgn=1.0',
        'merge "add_difference" &0 &7 alpha=1.0',
    )
    in_c = c(*DELTAS, 'merge "ties_sum" &4 &5 &6 k=1.0 vote_sgn=false', ADDED)
    theirs_of_c = {k: v for k, v in theirs(in_c, folder).items() if k[:5] != "first"}
    assert_same(ours(recipe_of(in_b), folder), theirs_of_c)


@pytest.mark.parametrize(
    ("line", "rescale"),
    [("", 1.0), ("no_rescale=1.0", 0.0), ("rescale=0.0", 0.0), ("rescale=1.0", 1.0)],
    ids=["always", "no_rescale", "rescale_0", "rescale_1"],
)
def test_dialect_b_rescales_by_whatever_word_it_had(line: str, rescale: float) -> None:
    text = old(
        "b",
        *TIES_B,
        'merge "ties_sum_with_dropout" &4 &5 &6 probability=0.1 k=1.0 '
        f"vote_sgn=1.0 {line}",
        'merge "add_difference" &0 &7 alpha=0.9',
    )
    node = recipe_of(text).nodes[-1]
    given = dict(node.params)  # type: ignore[union-attr]
    assert given.get("rescale", Setting(0.0)) == Setting(rescale)
    assert given["lam"] == Setting(0.9)


def test_text_layers_of_dialect_a_that_begin_alike_get_their_mean(folder: Path) -> None:
    text = old(
        "a",
        "dict l14_txt_block_in01=0.2 l14_txt_block_in11=1.0 l14_txt_default=0.0",
        'call "weighted_sum" &0 &1 alpha=&4',
    )
    mixed = ours(recipe_of(text), folder)
    m0, m1 = models(folder, 2)
    layer = "cond_stage_model.transformer.text_model.encoder.layers."
    for number, alpha in (("1", 0.2), ("11", 0.6)):
        key = f"{layer}{number}.mlp.fc1.weight"
        wanted = m0[key].double().lerp(m1[key].double(), alpha)
        torch.testing.assert_close(mixed[key].double(), wanted, rtol=1e-12, atol=1e-12)
