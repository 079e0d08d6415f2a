"""Selection by trial: a picture a model, resumed, with faults in their cells, kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.selection import run_selection
from lib_merge.autombw.selection_store import (
    keep_models,
    open_selection,
    selection_settings,
)
from lib_merge.core.recipe import ModelNode
from lib_merge.engine.progress import JobProgress
from lib_merge.errors import Cancelled, InputError, NonFiniteError, RecipeError
from tests.support.checkpoints import tiny_part, write_checkpoint
from tests.support.fake_study_host import FakeStudyHost

NAMES = ("ann", "bob", "cid")


class Merger:
    """Notes what was merged; `bad` names a model that cannot be."""

    def __init__(self, bad=""):
        self.recipes = []
        self.bad = bad
        self.n_restored = 0

    def merge(self, recipe, options=None):
        giver = recipe.nodes[1]
        assert isinstance(giver, ModelNode)
        if self.bad and Path(giver.path).stem == self.bad:
            raise NonFiniteError("It holds NaN; repair it.")
        self.recipes.append(recipe)

    def restore(self):
        self.n_restored += 1

    def givers(self):
        return [Path(recipe.nodes[1].path).stem for recipe in self.recipes]


@pytest.fixture
def host(tmp_path):
    host = FakeStudyHost(tmp_path)
    host.loader.load(Path("users_own.safetensors"))
    return host


@pytest.fixture
def models(tmp_path):
    found = []
    for seed, name in enumerate(NAMES):
        path = tmp_path / f"{name}.safetensors"
        found.append(str(write_checkpoint(path, tiny_part(seed + 1))))
    return found


@pytest.fixture
def settings(models):
    payload = Payload(name="cat", prompt="a cat", seed=5)
    return selection_settings("first", models, "text", payload)


def select(host, out, settings, merger, **options):
    return run_selection(host, out, settings, merger=merger, **options)


def test_every_model_gives_its_part_to_the_average(host, tmp_path, settings):
    merger = Merger()
    result = select(host, tmp_path, settings, merger)
    assert merger.givers() == ["average", *NAMES]
    assert result.is_complete
    assert [cell.name for cell in result.pictures] == ["average", *NAMES]
    (pick,) = merger.recipes[1].nodes[2].picks
    assert (pick.input, pick.blocks) == (1, ("BASE",))
    assert merger.recipes[1].save_dtype is None


def test_average_is_the_mean_of_all_models(host, tmp_path, settings):
    import torch
    from safetensors.torch import load_file

    result = select(host, tmp_path, settings, Merger())
    found = load_file(result.folder / "average.safetensors")
    given = [load_file(path) for path in settings.models]
    key = "model.diffusion_model.out.2.weight"
    mean = sum(tensors[key].double() for tensors in given) / len(given)
    assert torch.allclose(found[key].double(), mean, atol=2e-3)
    vae = "first_stage_model.decoder.conv_in.weight"
    assert torch.equal(found[vae], given[0][vae])


def test_pictures_are_not_rendered_again_when_it_goes_on(host, tmp_path, settings):
    progress = JobProgress()
    with pytest.raises(Cancelled):
        select(
            host,
            tmp_path,
            settings,
            Merger(),
            progress=progress,
            listener=lambda cell: progress.cancel() if cell.number == 1 else None,
        )
    folder = tmp_path / "selections" / "first"
    assert [bool(c.picture) for c in open_selection(folder).pictures] == [
        *(True, True),
        *(False, False),
    ]
    merger = Merger()
    assert select(host, tmp_path, settings, merger).is_complete
    assert merger.givers() == ["bob", "cid"]


def test_others_go_on_when_one_model_cannot_be_tried(host, tmp_path, settings):
    result = select(host, tmp_path, settings, Merger(bad="bob"))
    faults = [cell.fault for cell in result.pictures]
    assert faults == ["", "", "It holds NaN; repair it.", ""]
    assert result.is_complete
    assert "It holds NaN" in result.html.read_text(encoding="utf-8")
    again = select(host, tmp_path, settings, Merger())
    assert all(cell.picture for cell in again.pictures)


def test_users_model_is_loaded_again_at_the_end(host, tmp_path, settings):
    merger = Merger()
    host.loader.load(Path("other.safetensors"))
    select(host, tmp_path, settings, merger)
    assert host.loader.loaded() == Path("other.safetensors")
    assert merger.n_restored == 1


def test_sheets_show_every_model(host, tmp_path, settings):
    result = select(host, tmp_path, settings, Merger())
    page = result.html.read_text(encoding="utf-8")
    assert page.count('type="checkbox"') == 3
    assert all(path in page for path in settings.models)
    with Image.open(result.png) as sheet:
        assert sheet.size == (2 * 264 + 8, 2 * 286 + 8)


def test_kept_models_are_a_list_for_the_next_merge(host, tmp_path, settings):
    from lib_merge.cli._common import read_model_list

    result = select(host, tmp_path, settings, Merger())
    kept = keep_models(result, ["3", "ann"])
    assert kept == (settings.models[0], settings.models[2])
    assert read_model_list(result.folder / "kept.txt") == kept
    with pytest.raises(InputError, match="'9' is no model"):
        keep_models(result, ["9"])
    with pytest.raises(InputError, match="No model is kept"):
        keep_models(result, [])


def test_name_is_refused_when_another_selection_has_it(
    host, tmp_path, settings, models
):
    select(host, tmp_path, settings, Merger())
    payload = Payload(name="dog", prompt="a dog", seed=5)
    other = selection_settings("first", models, "text", payload)
    with pytest.raises(InputError, match="choose another name"):
        select(host, tmp_path, other, Merger())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"part": "legs"}, "cannot be tried"),
        ({"models": ["ann.safetensors"]}, "needs two models"),
        ({"models": ["nobody", "ann.safetensors"]}, "was not found"),
        ({"models": ["ann.safetensors"] * 2}, "named twice"),
    ],
    ids=["part", "one", "missing", "twice"],
)
def test_bad_settings_are_refused(tmp_path, models, change, match):
    payload = Payload(name="cat", prompt="a cat", seed=5)
    values = {"models": models, "part": "text", **change}
    with pytest.raises((InputError, RecipeError), match=match):
        selection_settings(
            "x", values["models"], values["part"], payload, folders=[tmp_path]
        )
