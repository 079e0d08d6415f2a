"""Writes a merge of whole models as mergekit's YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from lib_merge.core.nodes import MergeNode, ModelNode
from lib_merge.core.recipe import Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.orders import WHOLE
from lib_merge.methods import methods

_Values = Mapping[str, float]


def write(recipe: Recipe) -> str:
    """The recipe, of one merge of files without block weights.

    Raises:
        RecipeError: Anything that mergekit does not say, or says in another sense.
    """
    node = recipe.nodes[-1]
    models = recipe.nodes[:-1]
    if not isinstance(node, MergeNode) or not all(
        isinstance(one, ModelNode) for one in models
    ):
        raise RecipeError(
            ["mergekit's YAML says one merge of files; this recipe has several steps."]
        )
    if set(node.components) != set(WHOLE):
        raise RecipeError(
            [
                "mergekit merges every tensor, the VAE's too; this recipe blends only "
                f"{', '.join(c.value for c in node.components)}."
            ]
        )
    said = _WRITERS.get(node.method)
    if said is None:
        raise RecipeError(
            [
                f"mergekit's YAML is not written for {node.method}; use mergelab or "
                "mecha."
            ]
        )
    values = _values(node)
    paths = [recipe.nodes[i].path for i in node.inputs]  # type: ignore[union-attr]
    lines = said(paths, values)
    if recipe.save_dtype is not None:
        lines.append(f"out_dtype: {recipe.save_dtype.torch_name}")
    return "\n".join([*lines, "dtype: float32"]) + "\n"


def _values(node: MergeNode) -> dict[str, float]:
    """Every parameter as one number.

    Raises:
        RecipeError: One differs by block or layer.
    """
    found = {spec.name: spec.default for spec in methods().get(node.method).params}
    for name, setting in node.params:
        if setting.blocks or setting.rules:
            raise RecipeError(
                [
                    f"mergekit has no block weights; {node.method}'s {name} differs by "
                    "block."
                ]
            )
        found[name] = setting.value
    return found


def _models(
    paths: list[str], extra: Callable[[int], _Values] | None = None
) -> list[str]:
    lines = ["models:"]
    for place, path in enumerate(paths, 1):
        lines.append(f"  - model: {json.dumps(path)}")
        values = extra(place) if extra else {}
        if values:
            lines.append("    parameters:")
            lines += [f"      {name}: {value!r}" for name, value in values.items()]
    return lines


def _weight(values: _Values, place: int) -> float:
    return values.get(f"weight@{place}", values.get("weight", 1.0))


def _shared(**values: float | str) -> list[str]:
    if not values:
        return []
    return ["parameters:", *(f"  {n.rstrip('_')}: {v}" for n, v in values.items())]


def _soup(paths: list[str], values: _Values) -> list[str]:
    lines = _models(paths, lambda place: {"weight": _weight(values, place)})
    return ["merge_method: linear", *lines]


def _sum(paths: list[str], values: _Values) -> list[str]:
    alpha = values["alpha"]
    lines = _models(paths, lambda place: {"weight": (1.0 - alpha, alpha)[place - 1]})
    return ["merge_method: linear", *lines]


def _based(method: str, paths: list[str]) -> list[str]:
    return [f"merge_method: {method}", f"base_model: {json.dumps(paths[0])}"]


def _arithmetic(paths: list[str], values: _Values) -> list[str]:
    lines = _models(paths[1:], lambda place: {"weight": _weight(values, place)})
    shared = _shared(lambda_=repr(values["lam"]))
    return [*_based("task_arithmetic", paths), *lines, *shared]


def _slerp(paths: list[str], values: _Values) -> list[str]:
    return [*_based("slerp", paths), *_models(paths), *_shared(t=repr(values["alpha"]))]


def _stock(paths: list[str], values: _Values) -> list[str]:
    if values["clamp"]:
        raise RecipeError(["mergekit's model_stock does not clamp; set clamp=off."])
    return [*_based("model_stock", paths), *_models(paths[1:])]


def _karcher(paths: list[str], values: _Values) -> list[str]:
    if any(name.startswith("weight") and v != 1.0 for name, v in values.items()):
        raise RecipeError(["mergekit's karcher has no weights."])
    return ["merge_method: karcher", *_models(paths)]


def _sce(paths: list[str], values: _Values) -> list[str]:
    if values["lam"] != 1.0:
        raise RecipeError(["mergekit's sce has no factor; set lam=1."])
    shared = _shared(select_topk=repr(values["density"]))
    return [*_based("sce", paths), *_models(paths[1:]), *shared]


_WRITERS: dict[str, Callable[[list[str], _Values], list[str]]] = {
    "uniform_soup": _soup,
    "weighted_mean": _soup,
    "weighted_sum": _sum,
    "task_arithmetic": _arithmetic,
    "slerp": _slerp,
    "model_stock": _stock,
    "karcher_mean": _karcher,
    "sce": _sce,
}
