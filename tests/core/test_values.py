"""Registries, seeds, dtypes and declarations."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest

from lib_merge.core.declare import merge_method
from lib_merge.core.dtypes import DType
from lib_merge.core.params import Param
from lib_merge.core.registry import Registry
from lib_merge.core.seeds import derive_seed
from lib_merge.core.spaces import Weight
from lib_merge.errors import DeclarationError, InputError, UnknownIdError
from lib_merge.methods import methods


@dataclass(frozen=True)
class Thing:
    id: str
    n: int = 0


def registry() -> Registry[Thing]:
    found: Registry[Thing] = Registry("thing")
    for name in ("weighted_sum", "alpha", "ties"):
        found.add(Thing(name))
    return found


def test_duplicate_id_raises_and_changes_nothing() -> None:
    things = registry()
    with pytest.raises(DeclarationError, match="'ties' is declared twice"):
        things.add(Thing("ties", 9))
    assert things.get("ties").n == 0
    assert len(things) == 3


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UnknownIdError, match="did you mean 'weighted_sum'"):
        registry().get("weigthed_sum")


def test_iteration_is_sorted_by_id() -> None:
    assert [thing.id for thing in registry()] == ["alpha", "ties", "weighted_sum"]


def test_copy_leaves_the_original_alone() -> None:
    things = registry()
    twin = things.copy()
    twin.add(Thing("new"))
    assert "new" in twin
    assert "new" not in things


def test_seed_is_the_same_in_every_process() -> None:
    code = "from lib_merge.core.seeds import derive_seed as d; print(d(7, 'x', 3))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {str(derive_seed(7, "x", 3))}


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, 2), (12,)), ((1, "2"), (1, 2)), (("ab", "c"), ("a", "bc"))],
    ids=["joined", "type", "split"],
)
def test_seed_differs_when_its_parts_differ(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert derive_seed(*one) != derive_seed(*other)


@pytest.mark.parametrize("bits", [1, 32, 63, 64])
def test_seed_fits_its_width(bits: int) -> None:
    assert all(0 <= derive_seed(i, bits=bits) < 2**bits for i in range(200))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fp16", DType.F16),
        ("float16", DType.F16),
        ("bf16", DType.BF16),
        ("float64", DType.F64),
        ("fp8", DType.F8_E4M3),
        ("FP32", DType.F32),
    ],
    ids=str,
)
def test_precision_is_read_by_its_usual_names(name: str, wanted: DType) -> None:
    assert DType.from_name(name) is wanted


def test_unknown_precision_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"'float8'.*float16, bfloat16"):
        DType.from_name("float8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, 2.5, -1.5])
def test_parameter_outside_its_limits_is_refused(value: float) -> None:
    spec = methods().get("weighted_sum").param("alpha")
    assert spec is not None
    with pytest.raises(InputError, match=r"alpha=.*block IN04"):
        spec.check(value, "block IN04")


def test_declaration_without_limits_is_refused() -> None:
    def halves(a: Weight, *, alpha: float = 0.5) -> Weight:
        return a * alpha

    with pytest.raises(DeclarationError, match="'alpha': type it Annotated"):
        merge_method(label="x", formula="x", source="x")(halves)


def test_declaration_with_a_default_out_of_limits_is_refused() -> None:
    def halves(a: Weight, *, alpha: Annotated[float, Param(0, 1)] = 2.0) -> Weight:
        return a * alpha

    with pytest.raises(DeclarationError, match=r"default 2\.0 is out"):
        merge_method(label="x", formula="x", source="x")(halves)


def test_declaration_with_an_untyped_input_is_refused() -> None:
    def halves(a: int) -> int:
        return a

    with pytest.raises(DeclarationError, match="'a': type it Weight"):
        merge_method(label="x", formula="x", source="x")(halves)


@pytest.mark.parametrize(
    ("method_id", "n", "wanted"),
    [
        ("weighted_sum", 2, True),
        ("weighted_sum", 3, False),
        ("add_difference", 3, True),
        ("uniform_soup", 1, True),
        ("uniform_soup", 0, False),
        ("uniform_soup", 102, True),
    ],
    ids=str,
)
def test_number_of_models_follows_from_the_signature(
    method_id: str, n: int, wanted: bool
) -> None:
    assert methods().get(method_id).accepts(n) is wanted
