"""A merge method's declaration as plain JSON, for programs."""

from __future__ import annotations

from typing import Any

from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.core.runs import Over


def kind_of(method: MergeMethod) -> str:
    """The heading that a method is listed under."""
    if method.over is Over.TENSOR:
        return "Over whole tensors"
    return "Any number of models" if method.is_pool else "Few models"


def describe_method(method: MergeMethod) -> dict[str, Any]:
    """All that a method declares."""
    return {
        "id": method.id,
        "label": method.label,
        "formula": method.formula,
        "source": method.source,
        "doc": method.doc,
        "kind": kind_of(method),
        "over": method.over.value,
        "n_passes": method.n_passes,
        "has_base": method.has_base,
        "inputs": [
            {"name": s.name, "space": s.space.value, "is_pool": s.is_pool}
            for s in method.inputs
        ],
        "min_models": method.min_models,
        "params": [_describe_param(spec) for spec in method.params],
    }


def _describe_param(spec: ParamSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "default": spec.default,
        "low": spec.param.low,
        "high": spec.param.high,
        "step": spec.param.step,
        "per_block": spec.param.per_block,
        "per_model": spec.param.per_model,
        "is_integer": spec.param.is_integer,
        "choices": list(spec.param.choices),
        "help": spec.param.help,
    }
