"""What holds for every registered merge method, whatever it computes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lib_merge.core.method import MergeMethod
from lib_merge.core.params import SEED
from lib_merge.core.runs import Over, Place
from lib_merge.methods import methods
from tests.methods.cases import (
    FILLS,
    KEY,
    Params,
    Whole,
    WholeRuns,
    model_counts,
    models,
    settings,
)

METHODS = tuple(methods())
SHAPES = [(), (0,), (1,), (1, 1), (7,), (0, 3), (3, 0), (1, 5), (5, 3), (4, 3, 3, 2)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
CUT_SHAPES = [(67,), (9, 7), (11, 3, 2, 2)]

TAIL_HINT = (
    "torch computes the last few values of a run with other instructions, so that pow, "
    "sigmoid, exp2, atan2, hypot and a lerp by a tensor differ there in the last bit"
)

EVERY_METHOD = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.id)
BOTH_DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
SEEDED = pytest.mark.parametrize(
    "method",
    [m for m in METHODS if any(spec.param is SEED for spec in m.params)],
    ids=lambda m: m.id,
)
CUTTABLE = pytest.mark.parametrize(
    "method", [m for m in METHODS if m.over is not Over.TENSOR], ids=lambda m: m.id
)

POOLS = pytest.mark.parametrize(
    "method", [m for m in METHODS if m.is_pool], ids=lambda m: m.id
)


def most_models(method: MergeMethod) -> int:
    return model_counts(method)[-1]


def every_case(
    method: MergeMethod, dtype: torch.dtype
) -> Iterator[tuple[int, tuple[int, ...], Params]]:
    """All shapes and pools at the defaults; in float32 also one with all settings."""
    n_most = most_models(method)
    found = settings(method, n_most)
    for shape in SHAPES:
        yield n_most, shape, found[0]
    for n_models in model_counts(method)[:-1]:
        for shape in ((1,), (5, 3)):
            yield n_models, shape, settings(method, n_models)[0]
    if dtype is torch.float32:
        for params in found[1:]:
            yield n_most, (5, 3), params


@EVERY_METHOD
@BOTH_DTYPES
@pytest.mark.parametrize("fill", FILLS)
def test_result_is_finite_and_inputs_are_untouched_at_every_limit(
    method: MergeMethod, dtype: torch.dtype, fill: str
) -> None:
    for n_models, shape, params in every_case(method, dtype):
        tensors = models(n_models, fill, shape, dtype)
        before = [t.clone() for t in tensors]
        merged = method.call_with(tensors, params, KEY)
        case = f"{n_models} models of shape {shape} with {params}"
        assert merged.shape == shape, case
        assert merged.dtype == dtype, case
        assert torch.isfinite(merged).all(), case
        merged += 1.0
        is_same = all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
        assert is_same, case


@EVERY_METHOD
@BOTH_DTYPES
def test_same_input_gives_the_same_bits(
    method: MergeMethod, dtype: torch.dtype
) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", (37, 7), dtype)
    params = settings(method, n_models)[-1]
    first = method.call_with(tensors, params, KEY)
    assert torch.equal(first, method.call_with(tensors, params, KEY))


@SEEDED
@pytest.mark.parametrize("changed", ["seed", "key"])
def test_draws_differ_when_seed_or_key_does(method: MergeMethod, changed: str) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", (37, 7))

    def merged(params: Params, *, is_other: bool) -> Tensor:
        seed = params["seed"] + (1 if is_other and changed == "seed" else 0)
        key = KEY + (".other" if is_other and changed == "key" else "")
        return method.call_with(tensors, params | {"seed": seed}, key)

    plain = [p | {"seed": 7.0} for p in settings(method, n_models)]
    assert any(
        not torch.equal(merged(p, is_other=False), merged(p, is_other=True))
        for p in plain
    )


@CUTTABLE
@BOTH_DTYPES
@pytest.mark.parametrize("shape", CUT_SHAPES, ids=str)
def test_parts_give_the_bits_of_the_whole(
    method: MergeMethod, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", shape, dtype)
    params = settings(method, n_models)[0]
    whole = method.call_with(tensors, params, KEY)
    cut = Whole(method, tensors, params)
    for n_units in (1, 7, 64):
        assert torch.equal(cut.merged(n_units), whole), f"{n_units}; {TAIL_HINT}"


@CUTTABLE
def test_parts_give_the_bits_of_the_whole_at_every_limit(method: MergeMethod) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", (9, 7))
    for params in settings(method, n_models):
        whole = method.call_with(tensors, params, KEY)
        parts = Whole(method, tensors, params).merged(7)
        assert torch.equal(parts, whole), f"{params}; {TAIL_HINT}"


LONG = {Over.ELEMENTS: (40_009,), Over.ROWS: (4100, 9), Over.SLABS: (4100, 9)}


@CUTTABLE
def test_parts_of_a_longer_tensor_give_the_bits_of_the_whole(
    method: MergeMethod,
) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", LONG[method.over])
    params = settings(method, n_models)[0]
    whole = method.call_with(tensors, params, KEY)
    cut = Whole(method, tensors, params)
    for n_units in (1000, 1 << 15):
        assert torch.equal(cut.merged(n_units), whole), f"{n_units}; {TAIL_HINT}"


@POOLS
@pytest.mark.parametrize("left_out", [(0,), (1, 3), (5,)], ids=str)
def test_pool_goes_on_when_models_are_left_out(
    method: MergeMethod, left_out: tuple[int, ...]
) -> None:
    n_models = most_models(method)
    tensors = models(n_models, "random", (9, 7))
    for params in settings(method, n_models)[:5]:
        merged = Whole(method, tensors, params, left_out=left_out).merged(1000)
        assert torch.isfinite(merged).all(), params


@EVERY_METHOD
def test_dtypes_agree_where_no_threshold_is_near(method: MergeMethod) -> None:
    n_models = most_models(method)
    narrow = models(n_models, "random", (37, 7))
    wide = [tensor.double() for tensor in narrow]
    for params in settings(method, n_models):
        single = method.call_with(narrow, params, KEY).double()
        double = method.call_with(wide, params, KEY)
        limit = 1e-4 * max(1.0, float(double.abs().max()))
        n_far = int(((single - double).abs() > limit).sum())
        assert n_far <= 0.05 * single.numel(), params


@EVERY_METHOD
@BOTH_DTYPES
def test_equal_models_come_back_where_the_method_says_so(
    method: MergeMethod, dtype: torch.dtype
) -> None:
    is_kept = []
    for n_models in model_counts(method):
        for shape in ((64,), (12, 9), (4, 3, 3, 2)):
            model = FILLS["random"](0, shape).to(dtype)
            params = settings(method, n_models)[0]
            merged = method.call_with([model] * n_models, params, KEY)
            tolerance = TOLERANCE[dtype]
            is_kept.append(
                torch.allclose(merged, model, rtol=tolerance, atol=tolerance)
            )
    assert all(is_kept) == method.is_idempotent, (
        "at the defaults, models that are all equal must come back as they are; a "
        "method that changes them declares is_idempotent=False"
    )


@EVERY_METHOD
def test_measuring_takes_the_passes_that_are_declared(method: MergeMethod) -> None:
    assert (method.n_passes > 0) == (method.measure is not None)
    if method.measure is None:
        return
    n_models = most_models(method)
    tensors = models(n_models, "random", (37, 7), torch.float64)
    before = [t.clone() for t in tensors]
    place = Place(KEY, (37, 7), 0, tuple(range(n_models - method.n_single)))
    n_passes = []
    for params in settings(method, n_models):
        runs = WholeRuns(method, tensors, place)
        method.measure(runs, **params)
        n_passes.append(runs.n_passes)
    assert 0 < max(n_passes) <= method.n_passes
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@EVERY_METHOD
def test_what_it_must_see_goes_with_what_it_declares(method: MergeMethod) -> None:
    assert method.halo >= 0
    assert method.halo == 0 or method.over is Over.SLABS
    for shape in ((1, 1), (40_000, 8), (64, 64), (320, 4, 3, 3)):
        n_bytes = method.workspace_bytes(shape, 4)
        assert (n_bytes > 0) == (method.over is Over.TENSOR), (
            "a method over whole tensors says what it needs besides its inputs and its "
            "result"
        )


@EVERY_METHOD
def test_declaration_is_complete(method: MergeMethod) -> None:
    assert method.id == method.function.__name__
    assert re.fullmatch(r"[a-z][a-z0-9_]*", method.id)
    assert method.label
    assert method.formula
    assert "\n" not in method.formula
    assert method.source
    for spec in method.params:
        assert spec.param.help, spec.name
        assert spec.param.low < spec.param.high, spec.name
        assert 0 < spec.param.step <= spec.param.high - spec.param.low, spec.name
        assert not spec.param.is_integer or spec.default == int(spec.default)


PARTS = ("Formula:", "Shapes:", "Args:", "Degenerate inputs:", "Source:")


@EVERY_METHOD
def test_docstring_says_it_all_in_order(method: MergeMethod) -> None:
    doc = method.doc
    assert doc.splitlines()[0].endswith(".")
    places = [doc.find(part) for part in PARTS]
    assert -1 not in places, PARTS[places.index(-1)]
    assert places == sorted(places)
    told = doc[places[PARTS.index("Args:")] :]
    inputs = [spec.name for spec in method.inputs[int(method.hides_base) :]]
    for name in (*inputs, *(spec.name for spec in method.params)):
        assert f"\n    {name}: " in told, f"Args says nothing on {name}"
    degenerate = doc[places[PARTS.index("Degenerate inputs:")] :]
    for word in (r"\bequal", r"\bzeros?\b|\b0\b", r"\bempty\b"):
        assert re.search(word, degenerate, re.IGNORECASE), f"nothing on {word}"


def test_labels_are_unique() -> None:
    labels = [method.label for method in METHODS]
    assert len(set(labels)) == len(labels)


@EVERY_METHOD
def test_file_is_named_like_the_method(method: MergeMethod) -> None:
    file = inspect.getsourcefile(method.function)
    assert file is not None
    assert file.endswith(f"methods/{method.id}.py")
