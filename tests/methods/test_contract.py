"""What holds for every registered merge method, whatever it computes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from lib_merge.core.method import MergeMethod
from lib_merge.core.seeds import derive_seed
from lib_merge.methods import methods

METHODS = tuple(methods())
SHAPES = [(), (0,), (1,), (1, 1), (7,), (5, 3), (4, 3, 3, 2)]
DTYPES = [torch.float32, torch.float64]

FILLS: dict[str, Callable[[int, tuple[int, ...]], Tensor]] = {
    "random": lambda i, shape: torch.randn(
        shape, generator=torch.Generator().manual_seed(derive_seed("fill", i))
    ),
    "zero": lambda i, shape: torch.zeros(shape),
    "equal": lambda i, shape: torch.full(shape, 0.25),
    "opposite": lambda i, shape: torch.ones(shape) * (-1) ** i,
    "constant": lambda i, shape: torch.full(shape, float(i) - 0.5),
    "tiny": lambda i, shape: torch.full(shape, 1e-30 * (i + 1)),
    "half's largest": lambda i, shape: torch.full(shape, 65504.0 * (-1) ** i),
}


def n_models(method: MergeMethod) -> int:
    return method.min_models + (3 if method.is_pool else 0)


def corners(method: MergeMethod) -> Iterator[dict[str, float]]:
    """The defaults, and every combination of the declared limits."""
    yield {spec.name: spec.default for spec in method.params}
    sides = [(spec.param.low, spec.param.high) for spec in method.params]
    for values in itertools.product(*sides):
        names = [spec.name for spec in method.params]
        yield dict(zip(names, values, strict=True))


def inputs(method: MergeMethod, fill: str, shape: tuple[int, ...]) -> list[Tensor]:
    return [FILLS[fill](i, shape) for i in range(n_models(method))]


def by_id(method: MergeMethod) -> str:
    return method.id


@pytest.mark.parametrize("method", METHODS, ids=by_id)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fill", FILLS)
def test_shape_dtype_and_finiteness_are_kept_at_every_limit(
    method: MergeMethod, dtype: torch.dtype, shape: tuple[int, ...], fill: str
) -> None:
    for params in corners(method):
        tensors = [t.to(dtype) for t in inputs(method, fill, shape)]
        merged = method.call_with(tensors, params)
        assert merged.shape == shape
        assert merged.dtype == dtype
        assert torch.isfinite(merged).all()


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_inputs_are_left_untouched(method: MergeMethod) -> None:
    for params in corners(method):
        tensors = inputs(method, "random", (5, 3))
        before = [t.clone() for t in tensors]
        merged = method.call_with(tensors, params)
        merged += 1.0
        assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_same_input_gives_the_same_bits(method: MergeMethod) -> None:
    params = {spec.name: spec.default for spec in method.params}
    tensors = inputs(method, "random", (257,))
    first = method.call_with(tensors, params)
    assert torch.equal(first, method.call_with(tensors, params))


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_chunks_give_the_bits_of_the_whole(method: MergeMethod) -> None:
    params = {spec.name: spec.default for spec in method.params}
    tensors = inputs(method, "random", (1031,))
    whole = method.call_with(tensors, params)
    for size in (1, 7, 64, 1000):
        parts = [
            method.call_with([t[i : i + size] for t in tensors], params)
            for i in range(0, 1031, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_equal_models_come_back_as_they_are(method: MergeMethod) -> None:
    model = FILLS["random"](0, (64,)).double()
    params = {spec.name: spec.default for spec in method.params}
    merged = method.call_with([model.clone() for _ in range(n_models(method))], params)
    torch.testing.assert_close(merged, model, rtol=1e-15, atol=0)


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_declaration_is_complete(method: MergeMethod) -> None:
    assert method.id == method.function.__name__
    assert method.label
    assert method.formula
    assert method.source
    doc = method.doc
    for part in ("Formula:", "Shapes:", "Degenerate inputs:", "Source:"):
        assert part in doc, f"{method.id} says nothing on {part}"
    for spec in method.params:
        assert f"{spec.name}:" in doc
        assert spec.param.help
        assert spec.param.low < spec.param.high


@pytest.mark.parametrize("method", METHODS, ids=by_id)
def test_file_is_named_like_the_method(method: MergeMethod) -> None:
    file = inspect.getsourcefile(method.function)
    assert file is not None
    assert file.endswith(f"methods/{method.id}.py")
