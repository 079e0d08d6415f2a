"""Pairs that cannot be aligned, aligned files, and merges with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_merge.analysis.rebasin import outcome as outcome_module
from lib_merge.analysis.rebasin.align import REBASIN, save_aligned
from lib_merge.analysis.rebasin.matching import Matching
from lib_merge.analysis.rebasin.outcome import Wanted, check_wanted, save_outcome
from lib_merge.analysis.rebasin.pair import Pair, open_pair
from lib_merge.analysis.rebasin.report import report_of
from lib_merge.checkpoint.hashes import file_sha256
from lib_merge.checkpoint.metadata import read_recipe
from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Setting
from lib_merge.demo import MODEL_A, MODEL_B
from lib_merge.engine.progress import JobProgress, NullProgress
from lib_merge.engine.run import RunOptions
from lib_merge.errors import (
    Cancelled,
    CheckpointError,
    InputError,
    OutputError,
    RecipeError,
)
from tests.support.checkpoints import names_in, write_tiny
from tests.support.rebasin_models import DEMO_HEADS

UNET = "model.diffusion_model."


def pair_of(a: Path, b: Path) -> Pair:
    return open_pair(a, b, n_heads=DEMO_HEADS)


def matching_of(pair: Pair, seed: int = 1) -> Matching:
    """A matching of random permutations, as if a search had found them."""
    return Matching(pair.spec.random(seed), "identity", (0.0, 1.0), {}, True)


@pytest.fixture
def pair() -> Pair:
    return pair_of(MODEL_A, MODEL_B)


# Bad pairs


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(MODEL_A.read_bytes())
    for other in (MODEL_A, copy):
        with pytest.raises(RecipeError, match="one model twice"):
            pair_of(MODEL_A, other)


def test_models_of_two_architectures_are_refused(tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "xl.safetensors", "sdxl")
    with pytest.raises(RecipeError, match=r"Stable Diffusion 1\.x.*Diffusion XL"):
        pair_of(MODEL_A, other)


def test_architecture_without_a_spec_is_refused(tmp_path: Path) -> None:
    paths = [write_tiny(tmp_path / f"{s}.safetensors", "sd2", s) for s in (1, 2)]
    with pytest.raises(CheckpointError, match=r"Diffusion 2\.x, whose permutations"):
        open_pair(*paths)


def test_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.safetensors"
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no known architecture"):
        pair_of(MODEL_A, path)


def changed(tmp_path: Path, **changes: torch.Tensor | None) -> Path:
    """B with some tensors replaced, or left out."""
    tensors: dict[str, Any] = dict(load_file(MODEL_B))
    for key, tensor in changes.items():
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path)
    return path


def test_other_shapes_are_refused_by_key(tmp_path: Path) -> None:
    key = f"{UNET}input_blocks.0.0.weight"
    path = changed(tmp_path, **{key: torch.zeros(64, 9, 3, 3).half()})
    with pytest.raises(RecipeError, match=r"\[64, 4, 3, 3\] in A and \[64, 9, 3, 3\]"):
        pair_of(MODEL_A, path)


def test_missing_and_additional_keys_are_refused_together(tmp_path: Path) -> None:
    gone, new = f"{UNET}out.2.bias", f"{UNET}input_blocks.1.1.more.weight"
    path = changed(tmp_path, **{gone: None, new: torch.zeros(2).half()})
    with pytest.raises(RecipeError) as caught:
        pair_of(MODEL_A, path)
    assert len(caught.value.problems) == 2
    assert gone in caught.value.problems[0]
    assert new in caught.value.problems[1]


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    key = f"{UNET}out.2.bias"
    path = changed(tmp_path, **{key: torch.zeros(4, dtype=torch.int8)})
    with pytest.raises(RecipeError, match="holds int8 in B"):
        pair_of(MODEL_A, path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.safetensors' was not found"):
        pair_of(MODEL_A, tmp_path / "gone.safetensors")


def test_old_spelling_of_b_is_understood(tmp_path: Path) -> None:
    long = "cond_stage_model.transformer.text_model."
    tensors = {
        key.replace(long, "cond_stage_model.transformer."): tensor
        for key, tensor in load_file(MODEL_B).items()
    }
    path = tmp_path / "old.safetensors"
    save_file(tensors, path)
    pair = pair_of(MODEL_A, path)
    found = save_aligned(pair, matching_of(pair), tmp_path / "aligned.safetensors")
    aligned = load_file(found.path)
    assert set(aligned) == set(tensors)
    key = f"{long}final_layer_norm.weight"
    wanted = pair.spec.apply(key, load_file(MODEL_B)[key], pair.spec.random(1))
    assert torch.equal(aligned[pair.names[key]], wanted)


# Aligned files


def test_aligned_file_holds_b_permuted_bit_by_bit(pair: Pair, tmp_path: Path) -> None:
    matching = matching_of(pair)
    found = save_aligned(pair, matching, tmp_path / "aligned.safetensors", seed=7)
    aligned, source = load_file(found.path), load_file(MODEL_B)
    assert set(aligned) == set(source)
    for key, tensor in source.items():
        wanted = tensor
        if key in pair.spec.shapes:
            wanted = pair.spec.apply(key, tensor, matching.permutations)
        assert torch.equal(aligned[key], wanted), key
    assert found.sha256 == file_sha256(found.path, cache=False)
    assert names_in(tmp_path) == ["aligned.safetensors"]


def test_aligned_file_says_where_it_comes_from(pair: Pair, tmp_path: Path) -> None:
    found = save_aligned(pair, matching_of(pair), tmp_path / "o.safetensors", seed=7)
    with safe_open(found.path, framework="pt") as file:
        metadata = file.metadata()
    how = json.loads(metadata[REBASIN])
    assert how["to"] == {"name": "demo_a.safetensors", "sha256": file_sha256(MODEL_A)}
    assert how["model"]["sha256"] == file_sha256(MODEL_B)
    assert (how["seed"], how["n_sweeps"]) == (7, 1)
    assert set(json.loads(metadata["sd_merge_models"])) == {
        file_sha256(MODEL_A),
        file_sha256(MODEL_B),
    }


def test_aligned_file_leaves_out_the_ema_copy(tmp_path: Path) -> None:
    key = "model_ema.diffusion_modelout2bias"
    path = changed(tmp_path, **{key: torch.zeros(4).half()})
    pair = pair_of(MODEL_A, path)
    found = save_aligned(pair, matching_of(pair), tmp_path / "o.safetensors")
    assert set(load_file(found.path)) == set(load_file(MODEL_B))


def test_existing_output_is_kept_unless_it_may_be_replaced(
    pair: Pair, tmp_path: Path
) -> None:
    target = tmp_path / "o.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        save_aligned(pair, matching_of(pair), target)
    assert target.read_bytes() == b"mine"
    save_aligned(pair, matching_of(pair), target, overwrite=True)
    assert set(load_file(target)) == set(load_file(MODEL_B))


class Stopping(JobProgress):
    """Asks to stop after so many checks of the phase with a label."""

    def __init__(self, label: str, n_checks: int) -> None:
        super().__init__()
        self._wanted, self._left = label, n_checks

    def check(self) -> None:
        if self._wanted in self.snapshot().label:
            self._left -= 1
        if self._left <= 0:
            self.cancel()
        super().check()


def test_stopped_alignment_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        save_aligned(
            pair,
            matching_of(pair),
            tmp_path / "o.safetensors",
            progress=Stopping("Aligning", 100),
        )
    assert names_in(tmp_path) == []


# Merges


def merge(pair: Pair, wanted: Wanted, progress: JobProgress | None = None) -> Any:
    return save_outcome(
        pair,
        matching_of(pair),
        wanted,
        seed=0,
        options=RunOptions(n_threads=1),
        progress=progress or NullProgress(),
    )


def test_every_tensor_is_interpolated(pair: Pair, tmp_path: Path) -> None:
    # The script in circulation interpolates six tensors and takes the rest from A.
    out = tmp_path / "o.safetensors"
    wanted = Wanted(merged=out, alpha=Setting(0.25), save_dtype=None)
    result = merge(pair, wanted)
    assert result.aligned is None
    merged, first, second = load_file(out), load_file(MODEL_A), load_file(MODEL_B)
    chosen = pair.spec.random(1)
    for key in pair.components:
        a = first[key].float()
        b = pair.spec.apply(key, second[key], chosen).float()
        assert torch.equal(merged[key], a.lerp(b, 0.25).half()), key
    differing = [k for k in pair.components if not torch.equal(merged[k], first[k])]
    assert len(differing) > 0.9 * len(pair.components)
    assert names_in(tmp_path) == ["o.safetensors"]


def test_alpha_may_differ_per_block(pair: Pair, tmp_path: Path) -> None:
    out, aligned = tmp_path / "o.safetensors", tmp_path / "b.safetensors"
    alpha = Setting(0.0, blocks=((BlockId("M00"), 1.0),))
    merge(pair, Wanted(out, aligned, alpha, save_dtype=None))
    merged, first, second = load_file(out), load_file(MODEL_A), load_file(aligned)
    for key in pair.components:
        wanted = second if "middle_block" in key else first
        assert torch.equal(merged[key], wanted[key]), key
    recipe = read_recipe(out)
    assert recipe is not None
    names = [model.path for _, model in recipe.models()]
    assert names == ["demo_a.safetensors", "b.safetensors"]


def test_stopped_merge_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        merge(pair, Wanted(tmp_path / "o.safetensors"), Stopping("Merging", 3))
    assert names_in(tmp_path) == []


def test_folder_that_a_killed_process_left_is_removed(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".o.safetensors.999999999-aligned.tmp"
    mine = tmp_path / ".other.safetensors.999999999-aligned.tmp"
    for folder in (left, mine):
        folder.mkdir()
        (folder / "b.safetensors").write_bytes(b"half")
    monkeypatch.setattr(outcome_module, "is_in_use", lambda place: False)
    merge(pair, Wanted(tmp_path / "o.safetensors"))
    assert names_in(tmp_path) == [mine.name, "o.safetensors"]


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (Wanted(Path("x.ckpt")), r"must end in \.safetensors"),
        (Wanted(Path("/nowhere/x.safetensors")), "does not exist"),
        (Wanted(MODEL_A, overwrite=True), "is the input"),
        (Wanted(aligned=MODEL_B, overwrite=True), "is the input"),
        (Wanted(Path("x.safetensors"), Path("x.safetensors")), "both outputs"),
        (Wanted(Path("x.safetensors"), alpha=Setting(9.0)), "alpha"),
        (
            Wanted(
                Path("x.safetensors"), alpha=Setting(0.5, ((BlockId("IN99"), 1.0),))
            ),
            "IN99",
        ),
    ],
    ids=["suffix", "folder", "a", "b", "one_name", "alpha", "block"],
)
def test_impossible_outputs_are_refused_before_the_search(
    pair: Pair,
    wanted: Wanted,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=problem):
        check_wanted(pair, wanted)


def test_report_tells_how_far_each_permutation_moved(pair: Pair) -> None:
    name = "time_embed.hidden"
    width = pair.spec.permutations[name].width
    order = np.arange(width)
    order[[2, 5]] = [5, 2]
    chosen = {**pair.spec.identity(), name: order}
    report = report_of(pair, Matching(chosen, "identity", (1.0,), {name: 0.5}, True))
    moved = [move for move in report.moves if move.n_moved]
    assert [(m.name, m.width, m.n_moved, m.gain) for m in moved] == [
        (name, width, 2, 0.5)
    ]
    data = json.loads(json.dumps(report.to_json()))
    assert len(data["permutations"]) == len(pair.spec.permutations)
    assert data["a"] == "demo_a.safetensors"
