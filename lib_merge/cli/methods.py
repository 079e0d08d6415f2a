"""`methods`: what can be merged how, read from the methods' own declarations."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lib_merge.core.method import MergeMethod
from lib_merge.methods import methods

NAME = "methods"
HELP = "list the merge methods with their parameters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(args: argparse.Namespace) -> int:
    """Print every method."""
    if args.json:
        print(json.dumps([_as_json(method) for method in methods()], indent=2))
        return 0
    for method in methods():
        print(f"{method.id}  ({method.label})")
        print(f"    {method.formula}")
        print(f"    models: {_models(method)}")
        for spec in method.params:
            limits = f"{spec.param.low:g} to {spec.param.high:g}"
            per_block = ", per block" if spec.param.per_block else ""
            print(
                f"    {spec.name} = {spec.default:g}  ({limits}{per_block})  "
                f"{spec.param.help}"
            )
        print(f"    source: {method.source}\n")
    return 0


def _models(method: MergeMethod) -> str:
    names = [spec.name.upper() for spec in method.inputs if not spec.is_pool]
    if method.is_pool:
        names.append(f"{method.min_models - len(names)} or more")
    return ", ".join(names)


def _as_json(method: MergeMethod) -> dict[str, Any]:
    return {
        "id": method.id,
        "label": method.label,
        "formula": method.formula,
        "source": method.source,
        "inputs": [{"name": s.name, "is_pool": s.is_pool} for s in method.inputs],
        "min_models": method.min_models,
        "params": [
            {
                "name": spec.name,
                "default": spec.default,
                "low": spec.param.low,
                "high": spec.param.high,
                "step": spec.param.step,
                "per_block": spec.param.per_block,
                "help": spec.param.help,
            }
            for spec in method.params
        ],
    }
