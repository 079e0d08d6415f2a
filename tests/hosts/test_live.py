"""Flat runs into parameters of any type, place and orientation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lib_merge.errors import HostError
from lib_merge.hosts._clip_names import Part
from lib_merge.hosts._live import (
    LiveWeights,
    Slot,
    clean_name,
    collect,
    named_tensors,
    part_slot,
    quantised_name,
)


def live_of(*slots: Slot) -> LiveWeights:
    return LiveWeights(lambda key: slots if key == "k" else (), lambda key: key == "n")


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_values_are_rounded_once_to_the_parameters_type(dtype: torch.dtype) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3, dtype=dtype))
    values = torch.tensor([1 / 3, 2 / 3, 1e-8, 70000.0, -0.0, 1.0], dtype=torch.float64)
    live = live_of(Slot(0, parameter))
    live.write("k", 4, values[4:])
    live.write("k", 0, values[:4])
    assert torch.equal(parameter.detach(), values.to(dtype).view(2, 3))
    assert live.was_written


def test_scalar_and_empty_tensors_are_written() -> None:
    scalar, empty = torch.zeros(()), torch.zeros(0, 4)
    live_of(Slot(0, scalar)).write("k", 0, torch.tensor([2.5]))
    live_of(Slot(0, empty)).write("k", 0, torch.zeros(0))
    assert scalar.item() == 2.5


def test_via_rounds_before_the_parameters_own_type() -> None:
    parameter = torch.zeros(1)
    live_of(Slot(0, parameter, via=torch.float16)).write("k", 0, torch.tensor([1 / 3]))
    assert parameter.item() == torch.tensor(1 / 3).half().item()


@pytest.mark.parametrize("step", [1, 5, 16, 48], ids=str)
def test_fused_tensor_goes_to_its_shares(step: int) -> None:
    fused = torch.arange(48.0).view(12, 4)
    shares = [torch.zeros(4, 4) for _ in range(3)]
    live = live_of(*(part_slot(Part("p", i, 3), t) for i, t in enumerate(shares)))
    for start in range(0, 48, step):
        live.write("k", start, fused.view(-1)[start : start + step])
    assert torch.equal(torch.cat(shares), fused)


@pytest.mark.parametrize("step", [1, 5, 12], ids=str)
def test_transposed_tensor_is_written_in_file_order(step: int) -> None:
    wanted = torch.arange(12.0).view(3, 4)
    parameter = torch.zeros(4, 3)
    live = live_of(part_slot(Part("p", is_transposed=True), parameter))
    for start in range(0, 12, step):
        live.write("k", start, wanted.view(-1)[start : start + step])
    assert torch.equal(parameter, wanted.t())


def test_strided_tensor_survives_many_writers() -> None:
    wanted = torch.randn(8, 16, 3, 3)
    parameter = torch.zeros_like(wanted).to(memory_format=torch.channels_last)
    live = live_of(Slot(0, parameter))
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: live.write("k", i, wanted.view(-1)[i : i + 9]),
                range(0, wanted.numel(), 9),
            )
        )
    assert torch.equal(parameter, wanted)
    assert not parameter.is_contiguous()


def test_inference_tensors_are_written_from_any_thread() -> None:
    with torch.inference_mode():
        parameter = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
    live = live_of(Slot(0, parameter))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(live.write, "k", 0, torch.ones(4)).result()
    assert parameter.sum() == 4


def test_same_name_held_twice_is_written_twice() -> None:
    first, second = torch.zeros(2), torch.zeros(2)
    live_of(Slot(0, first), Slot(0, second)).write("k", 0, torch.ones(2))
    assert first.sum() == second.sum() == 2


def test_write_past_the_end_is_refused_and_changes_nothing() -> None:
    parameter = torch.zeros(4)
    live = live_of(Slot(0, parameter))
    with pytest.raises(HostError, match="at least 5 numbers in the file but 4"):
        live.write("k", 3, torch.ones(2))
    assert parameter.sum() == 0
    assert not live.was_written


def test_unknown_key_is_refused_only_if_needed() -> None:
    live = live_of(Slot(0, torch.zeros(1)))
    with pytest.raises(HostError, match="no tensor for 'n'"):
        live.write("n", 0, torch.ones(1))
    live.write("betas", 0, torch.ones(1))
    assert not live.was_written
    assert live.missing(["k", "n", "betas"]) == ("n",)


def test_names_lose_wrappers_and_shared_tensors_stay_single() -> None:
    module = torch.nn.Module()
    module.embedding = torch.nn.Module()
    module.embedding.wrapped = torch.nn.Embedding(2, 2)
    module.embedding.weight = module.embedding.wrapped.weight
    module.register_buffer("ids", torch.arange(2))
    found = collect(named_tensors(module, "x."))
    assert list(found) == ["x.embedding.weight", "x.ids"]
    assert len(found["x.embedding.weight"]) == 1
    assert clean_name("_orig_mod.a.wrapped.b") == "a.b"


@pytest.mark.parametrize(
    ("dtype", "is_plain"),
    [
        (torch.float32, True),
        (torch.float16, True),
        (torch.float8_e4m3fn, False),
        (torch.float8_e5m2, False),
        (torch.int8, False),
        (torch.uint8, False),
    ],
    ids=str,
)
def test_storage_type_tells_quantised_weights(
    dtype: torch.dtype, is_plain: bool
) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2).to(dtype), requires_grad=False)
    assert (quantised_name({"w": [parameter]}) is None) is is_plain
    # Position ids are integers by nature; they are no parameters.
    assert quantised_name({"ids": [torch.zeros(2).to(dtype)]}) is None
