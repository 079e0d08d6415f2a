"""Weight matching: planted permutations come back, and the score never falls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_merge.analysis.rebasin import _scores
from lib_merge.analysis.rebasin._budget import shares_of
from lib_merge.analysis.rebasin.matching import Matching, MatchOptions, match_pair
from lib_merge.analysis.rebasin.measure import total
from lib_merge.analysis.rebasin.pair import A, B, Pair, PairReader, open_pair
from lib_merge.analysis.rebasin.spec import Permutations
from lib_merge.analysis.rebasin.state import StateFile, state_file_of
from lib_merge.analysis.rebasin.structure import allows
from lib_merge.core.blocks import Component
from lib_merge.core.dtypes import DType
from lib_merge.demo import MODEL_A, MODEL_B
from lib_merge.engine.progress import JobProgress, NullProgress
from lib_merge.errors import Cancelled, InputError, MemoryLimitError, NonFiniteError
from tests.support.rebasin_models import (
    DEMO_HEADS,
    XL_HEADS,
    permute_file,
    spec_of,
    write_xl,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices are small here; more threads only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Permuted copies of both parents of the demo, and two unrelated models."""
    folder = tmp_path_factory.mktemp("rebasin")
    permute_file(MODEL_A, folder / "a1.safetensors", 1, DEMO_HEADS)
    permute_file(MODEL_A, folder / "a2.safetensors", 2, DEMO_HEADS)
    permute_file(MODEL_B, folder / "b1.safetensors", 3, DEMO_HEADS)
    shapes = load_file(MODEL_A)
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            key: torch.randn(t.shape, generator=generator).to(t.dtype)
            if t.dtype is torch.float16
            else t
            for key, t in shapes.items()
        }
        save_file(tensors, folder / f"random{seed}.safetensors")
    return folder


def pair_of(a: Path, b: Path) -> Pair:
    return open_pair(a, b, n_heads=DEMO_HEADS)


@pytest.fixture(scope="module")
def unrelated(models: Path) -> Pair:
    """Two models of independent random weights."""
    return pair_of(models / "random1.safetensors", models / "random2.safetensors")


def aligned(pair: Pair, permutations: Permutations) -> dict[str, torch.Tensor]:
    """B's permuted tensors, by A's keys."""
    tensors = load_file(pair.headers[B].path)
    return {
        key: pair.spec.apply(key, tensors[pair.stored(B, key)], permutations)
        for key in pair.components
    }


class PlainScore:
    """The definition: the inner product of A with B as permuted, in float64."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        first, second = (load_file(header.path) for header in pair.headers)
        self.a = {key: first[key].double() for key in pair.components}
        self.b = {key: second[pair.stored(B, key)].double() for key in pair.components}

    def __call__(self, permutations: Permutations) -> float:
        return sum(
            float((a * self.pair.spec.apply(key, self.b[key], permutations)).sum())
            for key, a in self.a.items()
        )


@pytest.mark.parametrize(
    ("a", "b"),
    [("demo", "a1"), ("a1", "demo"), ("a1", "a2")],
    ids=["model_permuted", "model_to_permuted", "two_permuted_copies"],
)
def test_model_permuted_at_random_is_brought_back_exactly(
    models: Path, a: str, b: str
) -> None:
    paths = {"demo": MODEL_A, "a1": models / "a1.safetensors"}
    paths["a2"] = models / "a2.safetensors"
    pair = pair_of(paths[a], paths[b])
    matching = match_pair(pair)
    wanted = load_file(paths[a])
    found = aligned(pair, matching.permutations)
    assert [key for key in found if not torch.equal(found[key], wanted[key])] == []
    assert matching.is_settled
    assert total(matching.before).distance > 1.0
    assert total(matching.after).distance == 0.0


def test_midpoint_of_two_permuted_copies_is_the_model(models: Path) -> None:
    # Two copies: aligned to the second, the first is the second, and so is the middle.
    pair = pair_of(MODEL_A, models / "a1.safetensors")
    found = aligned(pair, match_pair(pair).permutations)
    original = load_file(MODEL_A)
    for key, tensor in found.items():
        middle = original[key].float().lerp(tensor.float(), 0.5)
        assert torch.equal(middle, original[key].float()), key


def test_permuted_sibling_comes_as_near_as_the_sibling_itself(models: Path) -> None:
    plain = match_pair(pair_of(MODEL_A, MODEL_B))
    pair = pair_of(MODEL_A, models / "b1.safetensors")
    matching = match_pair(pair)
    assert matching.start == "guess"
    assert total(matching.after).distance <= total(plain.after).distance * (1 + 1e-9)
    assert total(matching.before).distance > 3 * total(plain.before).distance


def test_siblings_start_from_the_identity() -> None:
    matching = match_pair(pair_of(MODEL_A, MODEL_B))
    assert matching.start == "identity"
    assert matching.is_settled


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=["float32", "float64"])
def test_score_never_falls(unrelated: Pair, dtype: DType) -> None:
    plain = PlainScore(unrelated)
    scores: list[float] = []

    def note(name: str, permutations: Permutations) -> None:
        one = unrelated.spec.permutations[name]
        assert allows(one.structure, permutations[name])
        scores.append(plain(permutations))

    options = MatchOptions(iterations=1, dtype=dtype)
    matching = match_pair(unrelated, options, on_step=note)
    start = matching.scores[0]
    assert start >= plain({}) - 1e-6
    assert len(scores) > 20
    assert all(b > a for a, b in pairwise([start, *scores]))
    assert matching.scores[-1] == pytest.approx(scores[-1], rel=1e-6)
    assert total(matching.after).inner == pytest.approx(scores[-1], rel=1e-12)


def test_unrelated_models_come_nearer_with_every_sweep(unrelated: Pair) -> None:
    matching = match_pair(unrelated, MatchOptions(iterations=3))
    assert len(matching.scores) == 4
    assert list(matching.scores) == sorted(set(matching.scores))
    assert total(matching.after).distance < 0.97 * total(matching.before).distance


def test_first_match_is_not_of_a_model_with_itself(models: Path) -> None:
    # The script in circulation compares A with its own running copy at first, so that
    # nothing moves in the first pass.
    pair = pair_of(MODEL_A, models / "b1.safetensors")
    matching = match_pair(pair, MatchOptions(iterations=0))
    moved = [
        name
        for name, found in matching.permutations.items()
        if not np.array_equal(found, np.arange(len(found)))
    ]
    assert len(moved) > 0.9 * len(pair.spec.permutations)


def test_single_permutation_is_found_from_the_identity(tmp_path: Path) -> None:
    spec = spec_of(MODEL_A, DEMO_HEADS)
    tensors = load_file(MODEL_A)
    name = "output_blocks.5.0.stream"
    chosen = {name: spec.random(9)[name]}
    permuted = {
        key: spec.apply(key, t, chosen).contiguous() if key in spec.shapes else t
        for key, t in tensors.items()
    }
    save_file(permuted, tmp_path / "one.safetensors")
    matching = match_pair(pair_of(MODEL_A, tmp_path / "one.safetensors"))
    assert matching.start == "identity"
    assert list(matching.gains) == [name]
    assert total(matching.after).distance == 0.0


def test_seed_decides_the_order_and_repeats(unrelated: Pair) -> None:
    orders = []
    for seed in (0, 0, 1):
        names: list[str] = []
        options = MatchOptions(seed=seed, iterations=1)
        match_pair(unrelated, options, on_step=lambda n, _, to=names: to.append(n))
        orders.append(names)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_small_runs_give_what_large_ones_give(unrelated: Pair) -> None:
    pair = unrelated
    with PairReader(pair) as reader:
        for name in ("input_blocks.1.0.hidden", "clip_l.stream"):
            one = pair.spec.permutations[name]
            others = {n: p for n, p in pair.spec.random(1).items() if n != name}
            found = []
            for run in (1 << 24, 1000):
                how = _scores.Arithmetic("cpu", torch.float64, run)
                found.append(
                    _scores.score_channels(reader, one, others, how, check=lambda: None)
                )
            large, small = found
            assert np.allclose(large.matrices[0], small.matrices[0], atol=1e-9)
            assert np.allclose(large.norms, small.norms)
            assert np.allclose(large.norms_b, small.norms_b)


def test_scores_are_the_inner_products_of_channels(unrelated: Pair) -> None:
    pair = unrelated
    others = pair.spec.random(4)
    name = "input_blocks.4.1.transformer_blocks.0.attn2.heads"
    how = _scores.Arithmetic("cpu", torch.float64, 1 << 20)
    with PairReader(pair) as reader:
        found = _scores.score_channels(
            reader, pair.spec.permutations[name], others, how, check=lambda: None
        )
    # Query and key of A's feature 3 with those of B's feature 17, by hand.
    others = {n: p for n, p in others.items() if n != name}
    first, second = load_file(pair.headers[A].path), aligned(pair, others)
    wanted = [0.0, 0.0]
    prefix = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2."
    for part, keys in enumerate((("to_q", "to_k"), ("to_v",))):
        for key in keys:
            a = first[f"{prefix}{key}.weight"][3].double()
            wanted[part] += float(a @ second[f"{prefix}{key}.weight"][17].double())
    a = first[f"{prefix}to_out.0.weight"][:, 3].double()
    wanted[1] += float(a @ second[f"{prefix}to_out.0.weight"][:, 17].double())
    assert found.matrices[0][3, 17] == pytest.approx(wanted[0], rel=1e-9)
    assert found.matrices[1][3, 17] == pytest.approx(wanted[1], rel=1e-9)


class Counting(JobProgress):
    """Counts checks, and asks to stop at one of them."""

    def __init__(self, limit: int = 1 << 30) -> None:
        super().__init__()
        self.n_checks = 0
        self._limit = limit

    def check(self) -> None:
        self.n_checks += 1
        if self.n_checks >= self._limit:
            self.cancel()
        super().check()


@pytest.fixture(scope="module")
def whole(unrelated: Pair) -> tuple[Matching, int]:
    """A search of two sweeps that nobody stops, and how often it could be stopped."""
    counter = Counting()
    matching = match_pair(unrelated, MatchOptions(iterations=2), progress=counter)
    return matching, counter.n_checks


@pytest.mark.parametrize("share", [0.4, 0.75], ids=["first_guess", "sweep"])
def test_stopped_search_goes_on_and_ends_where_it_would_have(
    unrelated: Pair, whole: tuple[Matching, int], tmp_path: Path, share: float
) -> None:
    wanted, n_checks = whole
    options = MatchOptions(iterations=2)
    state = state_file_of(unrelated, 0, folder=tmp_path)
    stopping = Counting(int(share * n_checks))
    with pytest.raises(Cancelled, match="goes on from here"):
        match_pair(unrelated, options, progress=stopping, state_file=state)
    assert state.path.is_file()
    counter = Counting()
    resumed = match_pair(unrelated, options, progress=counter, state_file=state)
    # Both models are measured at the start and at the end of either.
    n_measured = 2 * len(unrelated.components)
    assert counter.n_checks <= n_checks * (1 - share) + n_measured + 50
    assert resumed.scores == pytest.approx(wanted.scores, rel=1e-12)
    for name, found in wanted.permutations.items():
        assert np.array_equal(resumed.permutations[name], found), name


def test_state_of_another_search_or_a_damaged_one_is_not_believed(
    models: Path, tmp_path: Path
) -> None:
    pair = pair_of(MODEL_A, models / "a1.safetensors")
    state = state_file_of(pair, 0, folder=tmp_path)
    match_pair(pair, state_file=state)
    assert state.load() is not None
    other = StateFile(state.path, "another", pair.spec)
    assert other.load() is None
    text = state.path.read_text(encoding="utf-8")
    state.path.write_text(text[: len(text) // 2], encoding="utf-8")
    assert state.load() is None
    state.remove()
    assert state.load() is None
    assert state_file_of(pair, 1, folder=tmp_path).path != state.path


def test_state_with_a_permutation_that_is_not_allowed_is_not_believed(
    models: Path, tmp_path: Path
) -> None:
    pair = pair_of(MODEL_A, models / "a1.safetensors")
    state = state_file_of(pair, 0, folder=tmp_path)
    match_pair(pair, state_file=state)
    found = state.load()
    assert found is not None
    # Channels of the first stream in reverse: groups of 30 beside others forbid it.
    name = "output_blocks.5.2.stream"
    found.permutations[name] = found.permutations[name][::-1].copy()
    state.save(found)
    assert state.load() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_model_with_nan_is_refused_by_file_and_key(
    tmp_path: Path, value: float
) -> None:
    tensors = load_file(MODEL_B)
    key = "model.diffusion_model.out.0.weight"
    tensors[key][3] = value
    save_file(tensors, tmp_path / "bad.safetensors")
    pair = pair_of(MODEL_A, tmp_path / "bad.safetensors")
    with pytest.raises(NonFiniteError, match=r"bad\.safetensors.*out\.0\.weight.*1 "):
        match_pair(pair)


def test_too_small_a_budget_is_refused_with_what_is_needed() -> None:
    pair = pair_of(MODEL_A, MODEL_B)
    with pytest.raises(MemoryLimitError, match=r"at least 0\.\d+ GB is needed"):
        match_pair(pair, MatchOptions(budget_bytes=1 << 20))


def test_unknown_device_is_refused() -> None:
    pair = pair_of(MODEL_A, MODEL_B)
    with pytest.raises(InputError, match="Device 'cuda:7' cannot be used"):
        match_pair(pair, MatchOptions(device="cuda:7"))


def test_negative_iterations_are_refused() -> None:
    with pytest.raises(InputError, match="-1 iterations"):
        match_pair(pair_of(MODEL_A, MODEL_B), MatchOptions(iterations=-1))


def test_cache_keeps_to_its_bytes() -> None:
    pair = pair_of(MODEL_A, MODEL_B)
    with PairReader(pair, cache_bytes=10_000) as reader:
        for key in pair.components:
            reader.read(A, key, keep=True)
        kept = sum(tensor.nbytes for tensor in reader._cache.values())
    assert 0 < kept <= 10_000


def test_file_that_changes_during_the_search_is_named(
    models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "changing.safetensors"
    path.write_bytes((models / "a1.safetensors").read_bytes())
    pair = pair_of(MODEL_A, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"changing\.safetensors changed"):
        match_pair(pair, progress=NullProgress())


@pytest.mark.parametrize("n_mb", [50, 200, 2048])
def test_shares_are_the_budget_at_most(n_mb: int) -> None:
    pair = pair_of(MODEL_A, MODEL_B)
    shares = shares_of(pair, n_mb << 20, DType.F32)
    widened = 5 * 8 * shares.run_elements
    whole = shares.pending_bytes + shares.cache_bytes + widened
    assert whole < n_mb << 20
    assert shares.run_elements >= 1 << 18


@pytest.mark.slow
def test_permuted_sdxl_is_brought_back_with_both_text_encoders(tmp_path: Path) -> None:
    source = write_xl(tmp_path, seed=1)
    copy = permute_file(source, tmp_path / "copy.safetensors", 2, XL_HEADS)
    pair = open_pair(source, copy, n_heads=XL_HEADS)
    matching = match_pair(pair)
    assert matching.is_settled
    for component in (Component.UNET, Component.CLIP_L, Component.CLIP_G):
        assert matching.before[component].distance > 1.0
        assert matching.after[component].distance == 0.0
