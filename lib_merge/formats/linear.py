"""The methods that are sums of their inputs, and each input's weight in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lib_merge.methods import methods

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Values = Mapping[str, Any]


def input_weights(method: str, n_inputs: int, given: Values) -> list[Any] | None:
    """Each input's weight, or None where the method is not linear.

    Args:
        method: Its id.
        n_inputs: How many inputs there are.
        given: Parameters that are set, each an array of values by cell.

    Returns:
        Arrays, or numbers where they are the same in every cell.
    """
    weigh = _LINEAR.get(method)
    if weigh is None or not methods().get(method).accepts(n_inputs):
        return None
    values = {spec.name: spec.default for spec in methods().get(method).params}
    return weigh(n_inputs, {**values, **given})


def _each(n_models: int, values: Values) -> list[Any]:
    return [values.get(f"weight@{i}", values["weight"]) for i in range(1, n_models + 1)]


def _soup(n_inputs: int, values: Values) -> list[Any]:
    return [1.0 / n_inputs] * n_inputs


def _mean(n_inputs: int, values: Values) -> list[Any]:
    import numpy as np

    weights = _each(n_inputs, values)
    total = sum(np.asarray(weight, dtype=float) for weight in weights)
    # All weights 0 give the plain mean, as the method has it.
    empty = np.asarray(total) == 0.0
    safe = np.where(empty, 1.0, total)
    return [np.where(empty, 1.0 / n_inputs, weight / safe) for weight in weights]


def _arithmetic(n_inputs: int, values: Values) -> list[Any]:
    steps = [values["lam"] * weight for weight in _each(n_inputs - 1, values)]
    return [1.0 - sum(steps), *steps]


def _sum(n_inputs: int, v: Values) -> list[Any]:
    return [1.0 - v["alpha"], v["alpha"]]


def _difference(n_inputs: int, v: Values) -> list[Any]:
    return [1.0, v["alpha"], -v["alpha"]]


def _triple(n_inputs: int, v: Values) -> list[Any]:
    return [1.0 - v["alpha"] - v["beta"], v["alpha"], v["beta"]]


def _twice(n_inputs: int, v: Values) -> list[Any]:
    rest = 1.0 - v["beta"]
    return [rest * (1.0 - v["alpha"]), rest * v["alpha"], v["beta"]]


def _subtraction(n_inputs: int, v: Values) -> list[Any]:
    part = v["alpha"] * v["beta"]
    return [1.0 / (1.0 - part), -part / (1.0 - part)]


def _scale(n_inputs: int, v: Values) -> list[Any]:
    return [v["alpha"]]


_LINEAR: dict[str, Callable[[int, Values], list[Any]]] = {
    "weighted_sum": _sum,
    "amplify_difference": _sum,
    "add_difference": _difference,
    "triple_sum": _triple,
    "sum_twice": _twice,
    "weighted_subtraction": _subtraction,
    "scale": _scale,
    "uniform_soup": _soup,
    "weighted_mean": _mean,
    "task_arithmetic": _arithmetic,
}
