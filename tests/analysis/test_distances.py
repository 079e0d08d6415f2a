"""Comparing files: the numbers, the parts, and that nothing but the models counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib_merge.analysis.comparison import Comparison
from lib_merge.analysis.distances import CompareOptions, compare_files
from lib_merge.checkpoint.names import stored_name
from lib_merge.engine.progress import JobProgress, ProgressSnapshot
from lib_merge.errors import Cancelled, InputError
from tests.analysis.reference import flat, is_weight, moved, pair_loop, write_models
from tests.support.checkpoints import (
    golden_rows,
    tiny_part,
    tiny_tensors,
    write_checkpoint,
)

BIG = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"


def compared(state) -> list[str]:
    return [key for key, tensor in state.items() if is_weight(tensor, key)]


@pytest.mark.parametrize("arch_id", ["sd1", "sdxl"])
def test_distances_are_those_of_a_loop_over_pairs(tmp_path, arch_id):
    base = tiny_tensors(arch_id, 1)
    states = [base, *(moved(base, seed, 0.03) for seed in range(3))]
    paths = write_models(tmp_path, {f"m{i}": s for i, s in enumerate(states)})
    found = compare_files(paths)
    blocks = {}
    for row in golden_rows(arch_id):
        if row["treatment"] == "merge":
            blocks.setdefault(row["block"], []).append(row["key"])
    assert set(found.blocks) == set(blocks)
    for block, keys in blocks.items():
        true = pair_loop(states, keys)
        assert np.allclose(found.part(block).l2(), true, rtol=1e-9, atol=0), block
    for component, sums in found.components.items():
        keys = [
            row["key"]
            for row in golden_rows(arch_id)
            if row["component"] == component and row["treatment"] == "merge"
        ]
        assert np.allclose(sums.l2(), pair_loop(states, keys), rtol=1e-9, atol=0)
    every = [key for keys in blocks.values() for key in keys]
    assert np.allclose(found.part("all").l2(), pair_loop(states, every), rtol=1e-9)
    assert found.part("all").n_values == len(flat(base, every))


def test_close_models_of_several_types_are_measured_to_nine_digits(tmp_path):
    base = tiny_part(1, dtype=torch.float32)
    near = moved(base, 2, 0.5)
    states = {
        "base": base,
        "near": near,
        "nearer": moved(near, 3, 1e-6),
        "half": moved(near, 4, 0.0, torch.float16),
        "brain": moved(near, 5, 0.0, torch.bfloat16),
        "double": moved(near, 6, 1e-7, torch.float64),
        "double2": moved(near, 7, 1e-7, torch.float64),
    }
    found = compare_files(write_models(tmp_path, states))
    keys = compared(base)
    true = pair_loop(list(states.values()), keys)
    assert np.allclose(found.part("all").l2(), true, rtol=1e-9, atol=0)


def test_similarities_are_those_of_their_formulas(tmp_path):
    base = tiny_part(1)
    states = {f"m{i}": moved(base, i, 0.2) for i in range(4)}
    states = {"base": base, **states}
    found = compare_files(write_models(tmp_path, states)).part("all")
    keys = compared(base)
    values = np.stack([flat(state, keys) for state in states.values()])
    changes = values - values[0]
    lengths = np.linalg.norm(values, axis=1)
    assert np.allclose(found.norms, lengths**2, rtol=1e-12)
    cosine = values @ values.T / np.outer(lengths, lengths)
    assert np.allclose(found.cosine(), cosine, atol=1e-12)
    far = np.linalg.norm(changes[1:], axis=1)
    change = changes[1:] @ changes[1:].T / np.outer(far, far)
    assert np.allclose(found.change_cosine()[1:, 1:], change, atol=1e-10)
    assert np.isnan(found.change_cosine()[0]).all()
    gaps = pair_loop(list(states.values()), keys)
    mean = (lengths[:, None] ** 2 + lengths[None, :] ** 2) / 2
    assert np.allclose(found.relative_l2(), gaps / np.sqrt(mean), rtol=1e-9)
    signs = np.sign(changes)
    both = np.abs(signs) @ np.abs(signs).T
    same = (both + signs @ signs.T) / 2
    assert np.allclose(found.sign_agreement()[1:, 1:], (same / both.clip(1))[1:, 1:])
    assert np.isnan(found.sign_agreement()[0]).all()


def sums_of(comparison: Comparison) -> list[bytes]:
    """Every number of a comparison, bit by bit."""
    groups = (comparison.components, comparison.blocks, comparison.keys)
    return [
        getattr(sums, name).tobytes()
        for group in groups
        for sums in group.values()
        for name in ("norms", "squares", "same", "both")
    ]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Three models with one tensor that takes several runs."""
    folder = tmp_path_factory.mktemp("large")
    states = {}
    for name in "abc":
        state = tiny_part(1)
        noise = torch.Generator().manual_seed(ord(name))
        state[BIG] = torch.randn((1500, 1000), generator=noise).half()
        states[name] = state
    return states, write_models(folder, states)


@pytest.mark.parametrize(
    ("n_threads", "budget"),
    [(1, 2 << 30), (2, 2 << 30), (3, 2 << 30), (3, 40 << 20)],
    ids=str,
)
def test_bits_do_not_depend_on_threads_or_memory(large, n_threads, budget):
    _, paths = large
    options = CompareOptions(is_by_key=True)
    usual = compare_files(paths, options=options)
    options = CompareOptions(budget, n_threads, is_by_key=True)
    other = compare_files(paths, options=options)
    assert other.n_threads <= n_threads
    assert sums_of(other) == sums_of(usual)


def test_tensor_of_several_runs_is_summed_up_whole(large):
    states, paths = large
    found = compare_files(paths, options=CompareOptions(is_by_key=True))
    true = pair_loop(list(states.values()), [BIG])
    assert found.keys[BIG].n_values == 1_500_000
    assert np.allclose(found.keys[BIG].l2(), true, rtol=1e-9, atol=0)


def test_sums_of_tensors_are_kept_only_when_asked_for(large):
    _, paths = large
    assert compare_files(paths).keys == {}
    with pytest.raises(InputError, match=r"no part .*in_layers"):
        compare_files(paths).part(BIG)


def test_result_does_not_depend_on_which_model_is_the_base(tmp_path):
    base = tiny_part(1)
    states = {f"m{i}": moved(base, i, 0.2) for i in range(4)}
    paths = write_models(tmp_path, states)
    usual = compare_files(paths)
    other = compare_files(paths, base=paths[2])
    assert (other.base, other.n_apart, other.pool) == (2, 0, (0, 1, 2, 3))
    assert other.names == usual.names
    for name in usual.components:
        one, two = usual.part(name), other.part(name)
        assert np.allclose(one.l2(), two.l2(), rtol=1e-12)
        assert np.allclose(one.norms, two.norms, rtol=1e-12)
    assert np.isnan(other.part("unet").change_cosine()[2]).all()


def test_base_apart_comes_first_and_is_not_in_the_pool(tmp_path):
    base = tiny_part(1)
    names = ("base", "a", "b")
    states = {name: moved(base, i, 0.2) for i, name in enumerate(names)}
    first, *paths = write_models(tmp_path, states)
    found = compare_files(paths, base=first)
    assert (found.names, found.base, found.pool) == (names, 0, (1, 2))


def test_old_spelling_of_text_keys_is_understood(tmp_path):
    base = tiny_part(1)
    old = {
        key.replace(".text_model.", "."): v for key, v in moved(base, 2, 0.1).items()
    }
    assert all(stored_name(old, key) for key in base)
    found = compare_files(write_models(tmp_path, {"new": base, "old": old}))
    assert found.left_out == ()
    assert found.part("clip_l").l2()[0, 1] > 0


def test_keys_that_do_not_fit_are_listed_and_left_out(tmp_path):
    base = tiny_part(1)
    wide = moved(base, 2, 0.1)
    odd = "model.diffusion_model.out.2.weight"
    wide[odd] = torch.zeros(4, 9, 3, 3).half()
    gone = "first_stage_model.decoder.conv_in.weight"
    del wide[gone]
    wide["lora_te1.alpha"] = torch.zeros(1)
    found = compare_files(write_models(tmp_path, {"base": base, "wide": wide}))
    reasons = {entry.key: entry.reason for entry in found.left_out}
    assert set(reasons) == {odd, gone, "lora_te1.alpha"}
    assert "wide [4, 9, 3, 3]" in reasons[odd]
    assert reasons[gone] == "missing in wide"
    assert reasons["lora_te1.alpha"] == "only in wide"
    keys = [key for key in compared(base) if key not in reasons]
    true = pair_loop([base, wide], keys)
    assert np.allclose(found.part("all").l2(), true, rtol=1e-9)


def test_names_are_as_long_as_it_takes_to_tell_models_apart(tmp_path):
    paths = []
    for i, folder in enumerate(("x", "y", "y/z")):
        (tmp_path / folder).mkdir()
        paths.append(
            tmp_path / folder / ("m.safetensors" if i < 2 else "n.safetensors")
        )
        write_checkpoint(paths[-1], tiny_part(i))
    assert compare_files(paths).names == ("x/m", "y/m", "n")


def test_progress_adds_up_to_the_bytes_read(large):
    _, paths = large
    seen: list[ProgressSnapshot] = []
    found = compare_files(paths, progress=JobProgress(seen.append, min_interval_s=0))
    assert seen[-1].label == "Comparing"
    assert seen[-1].done == seen[-1].total == found.n_bytes
    assert found.n_bytes > 3 * 3_000_000


def test_comparing_stops_when_it_is_cancelled(large):
    _, paths = large
    progress = JobProgress(lambda snapshot: progress.cancel(), min_interval_s=0)
    with pytest.raises(Cancelled, match="Comparing"):
        compare_files(paths, progress=progress)


def test_budget_too_small_is_refused_with_what_is_needed(large):
    _, paths = large
    with pytest.raises(InputError, match=r"too small for 3 models; give at least"):
        compare_files(paths, options=CompareOptions(1 << 20))


def test_number_of_torch_threads_is_as_before(large):
    _, paths = large
    before = torch.get_num_threads()
    compare_files(paths, options=CompareOptions(n_threads=2))
    assert torch.get_num_threads() == before


def test_options_say_by_name_what_they_are():
    names = [field.name for field in dataclasses.fields(CompareOptions)]
    assert names == ["budget_bytes", "n_threads", "is_by_key", "predict_share"]
