"""Kin of one architecture: what fits, what is refused, inpainting by a difference."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    Recipe,
    Setting,
    simple_recipe,
)
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import merge_to_file
from lib_merge.errors import RecipeError
from tests.support.checkpoints import tiny_part, tiny_tensors, write_checkpoint
from tests.support.pipelines import pipeline_tensors, write_pipeline

CONV = "model.diffusion_model.input_blocks.0.0.weight"
OTHER = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
IN = ".input_blocks.1."
LCM = "model.diffusion_model.time_embed.cond_proj.weight"


def values(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).half()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Plain b and c, inpainting a and d, pix2pix p, an LCM l and v-prediction v."""
    folder = tmp_path_factory.mktemp("kin")
    for seed, name in enumerate("abcdplv"):
        tensors = tiny_part(seed)
        tensors |= {k: t for k, t in tiny_tensors("sd1", seed).items() if IN in k}
        n_channels = {"a": 9, "d": 9, "p": 8}.get(name, 4)
        tensors[CONV] = values(5, n_channels, 3, 3, seed=seed)
        if name == "l":
            tensors[LCM] = values(5, 4)
        if name == "v":
            tensors["v_pred"] = torch.zeros(())
        write_checkpoint(folder / f"{name}.safetensors", tensors)
    tensors = pipeline_tensors(folder / "b.safetensors")
    write_pipeline(folder / "b", tensors)
    return folder


def paths(folder, names):
    return tuple(str(folder / f"{name}.safetensors") for name in names)


def difference(files, alpha=0.5, **options):
    return simple_recipe(
        "add_difference", files, {"alpha": Setting(alpha)}, save_dtype=None, **options
    )


def run(recipe, tmp_path, chunk=None):
    out = tmp_path / "out.safetensors"
    options = RunOptions(n_threads=1, chunk_elements=chunk)
    merge_to_file(recipe, out, options=options, overwrite=True)
    return load_file(out)


@pytest.mark.parametrize("chunk", [None, 7], ids=["whole", "by seven values"])
@pytest.mark.parametrize("second", ["b.safetensors", "b"], ids=["file", "pipeline"])
def test_inpainting_takes_the_difference_of_plain_models(
    models, tmp_path, chunk, second
):
    a, b, c = (load_file(path) for path in paths(models, "abc"))
    files = (str(models / "a.safetensors"), str(models / second), *paths(models, "c"))
    found = run(difference(files), tmp_path, chunk)
    wanted = a[CONV].float()
    wanted[:, :4] += 0.5 * (b[CONV].float() - c[CONV].float())
    assert torch.equal(found[CONV], wanted.half())
    # The extra channels are the inpainting model's, bit by bit.
    assert torch.equal(found[CONV][:, 4:], a[CONV][:, 4:])
    other = a[OTHER].float() + 0.5 * (b[OTHER].float() - c[OTHER].float())
    assert torch.equal(found[OTHER], other.half())


def test_pix2pix_takes_the_difference_of_plain_models(models, tmp_path):
    found = run(difference(paths(models, "pbc"), 1.0), tmp_path)
    wide = load_file(models / "p.safetensors")[CONV]
    assert torch.equal(found[CONV][:, 4:], wide[:, 4:])


def test_difference_goes_on_into_another_merge(models, tmp_path):
    """(A + (B - C)) and D, both of 9 channels, are averaged."""
    nodes = (
        *(ModelNode(path) for path in paths(models, "abcd")),
        MergeNode("add_difference", (0, 1, 2), (("alpha", Setting(1.0)),)),
        MergeNode("weighted_sum", (4, 3), (("alpha", Setting(0.5)),)),
    )
    found = run(Recipe(nodes, save_dtype=None), tmp_path)
    a, b, c, d = (load_file(path)[CONV].float() for path in paths(models, "abcd"))
    a[:, :4] += b - c
    assert torch.allclose(found[CONV].float(), (a + d) / 2, atol=2e-3)


@pytest.mark.parametrize(
    ("method", "names", "message"),
    [
        ("weighted_sum", "ab", r"b\.safetensors is plain \(4 channels\).*inpainting"),
        ("weighted_sum", "ba", r"a\.safetensors is inpainting \(9 channels\).*plain"),
        ("weighted_sum", "ap", r"p\.safetensors is instruct-pix2pix \(8 channels\)"),
        ("add_difference", "bac", r"a\.safetensors is inpainting"),
        ("add_difference", "abd", r"b\.safetensors is plain"),
        ("triple_sum", "abc", r"c\.safetensors is plain.* use add_difference"),
    ],
)
def test_kin_of_another_shape_is_refused_and_both_are_named(
    models, method, names, message
):
    recipe = simple_recipe(method, paths(models, names))
    with pytest.raises(RecipeError, match=message):
        plan_recipe(recipe)


def test_inpainting_models_merge_with_each_other(models, tmp_path):
    recipe = simple_recipe(
        "weighted_sum", paths(models, "ad"), {"alpha": Setting(0.5)}, save_dtype=None
    )
    a, d = (load_file(path)[CONV].float() for path in paths(models, "ad"))
    assert torch.allclose(run(recipe, tmp_path)[CONV].float(), (a + d) / 2, atol=2e-3)


def test_guidance_input_stays_where_only_the_first_model_is_an_lcm(models, tmp_path):
    recipe = simple_recipe("weighted_sum", paths(models, "lb"), save_dtype=None)
    plan = plan_recipe(recipe)
    assert any("which a whole model may lack" in text for text in plan.warnings)
    assert any("different kinds" in text and "lcm" in text for text in plan.warnings)
    found = run(recipe, tmp_path)
    assert torch.equal(found[LCM], load_file(models / "l.safetensors")[LCM])


def test_models_of_another_prediction_are_warned_of(models):
    warnings = plan_recipe(simple_recipe("weighted_sum", paths(models, "vb"))).warnings
    kinds = [text for text in warnings if "different kinds" in text]
    assert len(kinds) == 1
    assert "v.safetensors v-prediction" in kinds[0]
    assert "b.safetensors plain" in kinds[0]
