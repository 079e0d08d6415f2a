"""A study on a real, tiny, untrained SD1 pipeline: merged in place, rendered, saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import ImageStat
from PIL.Image import Image
from safetensors.torch import load_file, save_file

from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.preflight import new_settings
from lib_merge.autombw.runner import StudyRunner
from lib_merge.autombw.settings import shots
from lib_merge.autombw.study import Study, create_study, open_study
from lib_merge.core.ports import LoadedScorer, Progress, ScorerCard
from lib_merge.errors import RecipeError
from tests.support.tiny_pipelines import write_checkpoint, write_pipeline

pytest.importorskip("diffusers")
pytestmark = pytest.mark.slow


class Redness:
    """Scores how red a picture is, relative to how green."""

    id = "redness"
    label = "redness"
    range = (-1.0, 1.0)
    card = ScorerCard("nothing", "none", "none")

    def unavailable_reason(self, **found: object) -> str | None:
        """It needs nothing."""
        return None

    def load(
        self,
        *,
        device: str = "cpu",
        weights: Path | None = None,
        progress: Progress | None = None,
    ) -> LoadedScorer:
        """Nothing to load."""
        return self

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Mean red minus mean green, in units of 20 levels."""
        means = [ImageStat.Stat(image).mean for image in images]
        return [(red - green) / 20 for red, green, _ in means]

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny SD1 checkpoints and the user's own, with their pipeline's configs."""
    folder = tmp_path_factory.mktemp("models")
    pipeline = write_pipeline(folder, "sd1")
    for seed, name in enumerate(("a", "b", "own")):
        write_checkpoint(folder / f"{name}.safetensors", pipeline, "sd1", seed + 1)
    _share_vae(folder / "a.safetensors", folder / "b.safetensors")
    return folder


def _share_vae(source: Path, target: Path) -> None:
    """Give B the VAE of A, which every merge keeps."""
    first, second = load_file(source), load_file(target)
    vae = {key: first[key] for key in first if key.startswith("first_stage_model.")}
    save_file(second | vae, target)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of six trials on the real host, its winner saved."""
    from lib_merge.hosts.diffusers import DiffusersHost

    out = tmp_path_factory.mktemp("out")
    payload = Payload(
        name="p",
        prompt="a red circle",
        seed=5,
        steps=2,
        width=64,
        height=64,
        cfg_scale=3.0,
        n_iter=2,
    )
    settings = new_settings(
        "real",
        "weighted_sum",
        ["a.safetensors", "b.safetensors"],
        payloads=[payload],
        folders=[folder],
        scorer="redness",
        sampler="random",
        n_trials=6,
        n_held_out=1,
        checkpoint=str(out / "winner.safetensors"),
    )
    host = DiffusersHost([folder], out, out)
    host.loader.load(folder / "own.safetensors")
    study = create_study(out, settings)
    StudyRunner(host, study, Redness()).run()
    assert host.loader.loaded() == (folder / "own.safetensors").resolve()
    return open_study(study.folder)


def test_every_free_block_is_searched(finished: Study) -> None:
    """CLIP, time_embed, 25 numbered blocks, out: no dead dimension."""
    blocks = [str(r.block) for r in finished.settings.ranges]
    assert len(blocks) == 28
    assert blocks[0] == "CLIP_L"
    assert {"TIME_EMBED", "IN00", "M00", "OUT11", "OUT"} <= set(blocks)
    assert all(Path(model).is_absolute() for model in finished.settings.models)


def test_trials_differ_and_scores_are_finite(finished: Study) -> None:
    """The merge is really in the pictures: every point scores another value."""
    scores = [record.score for record in finished.records()]
    assert len(scores) == 6
    assert all(score is not None and math.isfinite(score) for score in scores)
    assert len(set(scores)) == 6


@pytest.mark.parametrize("label", ["A", "B"])
def test_parent_trial_equals_the_parent_really_loaded(
    label: str, finished: Study, folder: Path
) -> None:
    """All A and all B in place render what the files themselves render, bit for bit."""
    from lib_merge.hosts.diffusers import DiffusersHost

    host = DiffusersHost([folder], folder, folder)
    host.loader.load(folder / f"{label.lower()}.safetensors")
    images = host.renderer.render([shot.request for shot in shots(finished.settings)])
    record = next(r for r in finished.records() if r.label == label)
    for shot, image in zip(shots(finished.settings), images, strict=True):
        stored = finished.trial_dir(record.number) / shot.file
        assert image.convert("RGB").tobytes() == pixels(stored)


def pixels(path: Path) -> bytes:
    """The pixels of a stored picture."""
    from PIL import Image as PilImage

    with PilImage.open(path) as picture:
        return bytes(picture.convert("RGB").tobytes())


def test_saved_winner_renders_what_the_trial_rendered(
    finished: Study, folder: Path
) -> None:
    """Saved and loaded it gives the pictures of the held-out round, bit for bit."""
    from lib_merge.checkpoint.metadata import read_recipe
    from lib_merge.hosts.diffusers import DiffusersHost

    result = finished.result()
    assert result is not None
    assert result.checkpoint is not None, result.note
    saved = Path(result.checkpoint)
    host = DiffusersHost([folder], folder, folder)
    host.loader.load(saved)
    wanted = shots(finished.settings, is_held_out=True)
    images = host.renderer.render([shot.request for shot in wanted])
    place = finished.held_out_dir / result.winner.replace(" ", "_")
    for shot, image in zip(wanted, images, strict=True):
        assert image.convert("RGB").tobytes() == pixels(place / shot.file)
    stored = json.loads(finished.recipe_path.read_text())
    inside = read_recipe(saved)
    assert inside is not None
    assert inside.to_json()["nodes"][-1] == stored["nodes"][-1]


def test_models_that_are_equal_or_missing_are_refused_before_work(folder: Path) -> None:
    """One error that names them, and no study."""
    payload = Payload(name="p", prompt="x", seed=5)
    a = str(folder / "a.safetensors")
    with pytest.raises(RecipeError, match=r"a\.safetensors"):
        new_settings("x", "weighted_sum", [a, a], payloads=[payload])
    with pytest.raises(RecipeError, match=r"gone\.safetensors"):
        new_settings("x", "weighted_sum", [a, "gone.safetensors"], payloads=[payload])
    with pytest.raises(RecipeError, match="nothing to search"):
        new_settings("x", "uniform_soup", [a, a], payloads=[payload])
