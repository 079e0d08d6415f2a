"""Running a plan: right values, the same bits however it is cut, faults named."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_merge.arch import architectures
from lib_merge.core.blocks import BlockId, Component, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import (
    MergeNode,
    ModelNode,
    NonFinite,
    Recipe,
    Setting,
    simple_recipe,
)
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.progress import JobProgress
from lib_merge.engine.run import RunOptions, run_plan
from lib_merge.engine.sources import Sources
from lib_merge.errors import Cancelled, InputError, NonFiniteError
from tests.support.checkpoints import (
    tiny_part,
    tiny_tensors,
    write_checkpoint,
    write_tiny,
)

UNET_KEY = "model.diffusion_model.input_blocks.4.0.in_layers.0.weight"


class MemorySink:
    """Keeps every written value; refuses to be written twice."""

    def __init__(self, plan) -> None:
        self.values = {
            task.key: torch.zeros(
                task.n_elements, dtype=getattr(torch, task.dtype.torch_name)
            )
            for task in plan.tasks
        }
        self.n_written = dict.fromkeys(self.values, 0)
        self.lock = threading.Lock()

    def write(self, key: str, start: int, values: torch.Tensor) -> None:
        with self.lock:
            assert values.dtype is self.values[key].dtype
            self.values[key][start : start + len(values)] = values
            self.n_written[key] += len(values)

    def check_complete(self) -> None:
        for key, values in self.values.items():
            assert self.n_written[key] == len(values), key


def run(recipe, options=None, progress=None, *, sources=None):
    plan = plan_recipe(recipe)
    sink = MemorySink(plan)
    report = run_plan(plan, sink, options, progress, sources=sources)
    sink.check_complete()
    return sink.values, report


def same_bits(one, two) -> bool:
    assert set(one) == set(two)
    return all(
        torch.equal(one[key].view(torch.uint8), two[key].view(torch.uint8))
        for key in one
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for arch_id in ("sd1", "sd2", "sdxl"):
        for seed, name in enumerate("abc"):
            write_tiny(folder / f"{arch_id}{name}.safetensors", arch_id, seed + 1)
    return folder


def pair(folder, a, b):
    """Two files with these tensors."""
    return (
        str(write_checkpoint(folder / "a.safetensors", a)),
        str(write_checkpoint(folder / "b.safetensors", b)),
    )


def paths(folder, arch_id, names):
    return tuple(str(folder / f"{arch_id}{name}.safetensors") for name in names)


FORMULAS = {
    "weighted_sum": ("ab", lambda a, b: a + 0.3 * (b - a)),
    "add_difference": ("abc", lambda a, b, c: a + 0.3 * (b - c)),
    "uniform_soup": ("abc", lambda a, b, c: (a + b + c) / 3),
}


@pytest.mark.parametrize("arch_id", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("method", FORMULAS)
def test_run_equals_the_formula_in_float64_when_merging(models, arch_id, method):
    names, formula = FORMULAS[method]
    params = {} if method == "uniform_soup" else {"alpha": Setting(0.3)}
    recipe = simple_recipe(
        method,
        paths(models, arch_id, names),
        params,
        compute_dtype=DType.F64,
        save_dtype=DType.F64,
    )
    values, report = run(recipe)
    parents = [tiny_tensors(arch_id, seed + 1) for seed in range(len(names))]
    role_of = architectures().get(arch_id).role_of
    n_merged = 0
    for key, found in values.items():
        role = role_of(key)
        stored = parents[0][key].reshape(-1)
        if role.treatment is Treatment.MERGE and role.component is not Component.VAE:
            n_merged += 1
            expected = formula(*(p[key].reshape(-1).double() for p in parents))
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
        else:
            assert torch.equal(found.to(stored.dtype), stored), key
    assert report.n_merged == n_merged
    assert report.n_merged + report.n_copied == len(values)


@pytest.fixture(scope="module")
def reference(models):
    """One merge with values per block, run the plainest way."""
    setting = Setting(0.37, ((BlockId("IN04"), 0.81), (BlockId("BASE"), 0.13)))
    recipe = simple_recipe(
        "weighted_sum", paths(models, "sd1", "ab"), {"alpha": setting}
    )
    values, _ = run(recipe, RunOptions(n_threads=1))
    return recipe, values


@settings(max_examples=10, deadline=None)
@given(
    chunk=st.integers(1, 3000),
    n_threads=st.integers(1, 4),
    cache_bytes=st.sampled_from([0, 100_000, 1 << 30]),
)
def test_run_gives_equal_bits_when_cut_and_shared_out_in_any_way(
    reference, chunk, n_threads, cache_bytes
):
    recipe, expected = reference
    options = RunOptions(n_threads=n_threads, chunk_elements=max(chunk, 200))
    with Sources(cache_bytes) as sources:
        values, _ = run(recipe, options, sources=sources)
    assert same_bits(values, expected)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("precision", [DType.F32, DType.F64], ids=["f32", "f64"])
def test_run_gives_equal_bits_for_every_method_when_chunks_differ(
    tmp_path, method, precision
):
    names, _ = FORMULAS[method]
    key = "model.diffusion_model.input_blocks.4.0.in_layers.2.weight"
    files = []
    for seed, name in enumerate(names):
        tensors = tiny_part(seed)
        generator = torch.Generator().manual_seed(seed)
        tensors[key] = torch.randn(300_007, generator=generator).half()
        files.append(str(write_checkpoint(tmp_path / f"{name}.safetensors", tensors)))
    params = {} if method == "uniform_soup" else {"alpha": Setting(0.3)}
    recipe = simple_recipe(method, tuple(files), params, compute_dtype=precision)
    expected, _ = run(recipe, RunOptions(n_threads=1, chunk_elements=1 << 20))
    for n_threads, chunk in ((1, 4099), (2, 65_537), (3, 131_072), (2, 1 << 20)):
        options = RunOptions(n_threads=n_threads, chunk_elements=chunk)
        assert same_bits(run(recipe, options)[0], expected)


DTYPES = {
    "f64": DType.F64,
    "f32": DType.F32,
    "f16": DType.F16,
    "bf16": DType.BF16,
    "e4m3": DType.F8_E4M3,
    "e5m2": DType.F8_E5M2,
}


@pytest.mark.parametrize("saved", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_run_converts_when_types_are(tmp_path, stored, saved):
    dtype = getattr(torch, DTYPES[stored].torch_name)
    out_dtype = getattr(torch, DTYPES[saved].torch_name)
    files = pair(tmp_path, tiny_part(1, dtype=dtype), tiny_part(2, dtype=dtype))
    recipe = simple_recipe(
        "weighted_sum", files, {"alpha": Setting(0.3)}, save_dtype=DTYPES[saved]
    )
    values, _ = run(recipe)
    a, b = (tiny_part(seed, dtype=dtype)[UNET_KEY].float() for seed in (1, 2))
    expected = torch.lerp(a, b, 0.3).to(out_dtype).float().reshape(-1)
    assert torch.equal(values[UNET_KEY].float(), expected)


def test_run_keeps_each_type_when_saving_as_is(tmp_path):
    a, b = tiny_part(1), tiny_part(2)
    a[UNET_KEY] = a[UNET_KEY].to(torch.bfloat16)
    values, _ = run(
        simple_recipe("weighted_sum", pair(tmp_path, a, b), save_dtype=None)
    )
    assert values[UNET_KEY].dtype is torch.bfloat16


def test_run_reads_legacy_files_when_mixed_with_safetensors(tmp_path, models):
    path = tmp_path / "b.ckpt"
    torch.save({"state_dict": tiny_tensors("sd1", 2)}, path)
    a, b = paths(models, "sd1", "ab")
    expected, _ = run(simple_recipe("weighted_sum", (a, b)))
    found, _ = run(simple_recipe("weighted_sum", (a, str(path))))
    assert same_bits(found, expected)


def test_run_computes_a_graph_without_rounding_between(models):
    files = paths(models, "sd1", "abc")
    recipe = Recipe(
        nodes=(
            *(ModelNode(path) for path in files),
            MergeNode("weighted_sum", (1, 2), (("alpha", Setting(0.25)),)),
            MergeNode("weighted_sum", (0, 3), (("alpha", Setting(0.5)),)),
        )
    )
    values, _ = run(recipe)
    a, b, c = (tiny_tensors("sd1", s)[UNET_KEY].reshape(-1).float() for s in (1, 2, 3))
    assert torch.equal(values[UNET_KEY], a.lerp(b.lerp(c, 0.25), 0.5).half())


@pytest.mark.parametrize(
    ("save", "value", "message"),
    [
        (DType.F16, 40_000.0, "does not fit float16"),
        (DType.F8_E4M3, 160.0, "does not fit float8_e4m3fn"),
    ],
    ids=["f16", "fp8"],
)
def test_run_names_the_key_when_a_result_overflows(tmp_path, save, value, message):
    a, b = tiny_part(1), tiny_part(2)
    for tensors, sign in ((a, -1), (b, 1)):
        tensors[UNET_KEY] = torch.full_like(tensors[UNET_KEY], sign * value)
    files = pair(tmp_path, a, b)
    recipe = simple_recipe(
        "weighted_sum", files, {"alpha": Setting(2.0)}, save_dtype=save
    )
    with pytest.raises(NonFiniteError, match=message) as caught:
        run(recipe)
    assert UNET_KEY in str(caught.value)
    assert "IN04" in str(caught.value)


def test_run_names_the_key_when_the_arithmetic_overflows(tmp_path):
    a = tiny_part(1, dtype=torch.float32)
    b = tiny_part(2, dtype=torch.float32)
    a[UNET_KEY].fill_(-3e38)
    b[UNET_KEY].fill_(3e38)
    files = pair(tmp_path, a, b)
    recipe = simple_recipe("weighted_sum", files, save_dtype=DType.F32)
    with pytest.raises(NonFiniteError, match="although every model is finite"):
        run(recipe)


def test_run_notes_keys_when_a_model_itself_is_not_finite(tmp_path):
    a, b = tiny_part(1), tiny_part(2)
    b[UNET_KEY].view(-1)[2] = float("nan")
    files = pair(tmp_path, a, b)
    keeping = simple_recipe("weighted_sum", files, on_non_finite=NonFinite.KEEP)
    values, report = run(keeping)
    assert report.non_finite_keys == (UNET_KEY,)
    assert torch.isnan(values[UNET_KEY]).nonzero().tolist() == [[2]]


@pytest.mark.parametrize("n_threads", [1, 3], ids=["one", "three"])
def test_run_stops_when_cancelled_midway(models, n_threads):
    plan = plan_recipe(simple_recipe("weighted_sum", paths(models, "sd1", "ab")))
    progress = JobProgress()

    class Cancelling(MemorySink):
        n_calls = 0

        def write(self, key, start, values):
            super().write(key, start, values)
            self.n_calls += 1
            if self.n_calls == 20:
                progress.cancel()

    sink = Cancelling(plan)
    with pytest.raises(Cancelled, match="stopped as asked"):
        run_plan(plan, sink, RunOptions(n_threads=n_threads), progress)
    assert sink.n_calls < 20 + 2 * n_threads


@pytest.mark.parametrize("n_threads", [1, 3], ids=["one", "three"])
def test_run_raises_the_sinks_own_fault_when_it_fails(models, n_threads):
    plan = plan_recipe(simple_recipe("weighted_sum", paths(models, "sd1", "ab")))

    class Failing(MemorySink):
        def write(self, key, start, values):
            raise OSError("the disk is on fire")

    with pytest.raises(OSError, match="the disk is on fire"):
        run_plan(plan, Failing(plan), RunOptions(n_threads=n_threads))


def test_run_advances_by_all_bytes_of_the_output(models):
    recipe = simple_recipe("weighted_sum", paths(models, "sd1", "ab"))
    plan = plan_recipe(recipe)
    progress = JobProgress()
    progress.start("Merging", plan.n_bytes_out)
    run_plan(plan, MemorySink(plan), RunOptions(n_threads=2), progress)
    assert progress.snapshot().done == plan.n_bytes_out


def test_run_leaves_torchs_thread_number_alone(models):
    before = torch.get_num_threads()
    seen = []
    run(
        simple_recipe("weighted_sum", paths(models, "sd1", "ab")),
        RunOptions(n_threads=3),
    )
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), seen) == (before, [before])


@pytest.mark.parametrize("budget", [64 << 20, 1 << 20], ids=["64MB", "1MB"])
def test_run_gives_equal_bits_when_memory_is_small(reference, budget):
    recipe, expected = reference
    values, _ = run(recipe, RunOptions(budget_bytes=budget, n_threads=2))
    assert same_bits(values, expected)


def test_run_refuses_when_memory_is_far_too_small(models):
    recipe = simple_recipe("weighted_sum", paths(models, "sd1", "ab"))
    with pytest.raises(InputError, match=r"too small for 2 models; give at least"):
        run(recipe, RunOptions(budget_bytes=1000))


def test_run_refuses_when_the_device_does_not_exist(models):
    recipe = simple_recipe("weighted_sum", paths(models, "sd1", "ab"))
    with pytest.raises(InputError, match="Device 'nonsense' cannot be used"):
        run(recipe, RunOptions(device="nonsense"))


def test_run_reads_each_model_once_when_it_is_cached(models):
    recipe = simple_recipe("weighted_sum", paths(models, "sd1", "ab"))
    with Sources(1 << 30) as sources:
        _, first = run(recipe, sources=sources)
        _, second = run(recipe, sources=sources)
    assert first.bytes_read > 0
    assert second.bytes_read == 0
