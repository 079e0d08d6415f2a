"""What is odd about the models of a merge: equal ones, a lone one, a strange base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lib_merge.checkpoint.compare import equal_groups, have_equal_tensors
from lib_merge.checkpoint.header import Header
from lib_merge.checkpoint.reader import CheckpointReader, read_stored
from lib_merge.core.layouts import find_stored
from lib_merge.core.method import MergeMethod
from lib_merge.core.recipe import MergeNode, Recipe
from lib_merge.engine.layouts import layout_of
from lib_merge.methods import methods

if TYPE_CHECKING:
    from torch import Tensor

_N_NAMED = 4
_N_KEYS = 24
_N_VALUES = 2048
_STRANGE = 2.0
"""A base so many times farther from the pool's mean than the pool's models are."""


def equal_input_problems(node: MergeNode, headers: Mapping[int, Header]) -> list[str]:
    """Two inputs with the same content, where that makes the merge pointless.

    Args:
        node: A merge of a fixed number of models; pools only get warnings.
        headers: By model node index.
    """
    if node.method not in methods() or methods().get(node.method).is_pool:
        return []
    # With three models a difference of B and C; A may be C (amplified difference).
    one, two = (1, 2) if len(node.inputs) > 2 else (0, 1)
    if len(node.inputs) < 2:
        return []
    left, right = (headers.get(node.inputs[place]) for place in (one, two))
    if left is None or right is None or not have_equal_tensors(left, right):
        return []
    names = [_name(place, methods().get(node.method)) for place in (one, two)]
    return [
        f"{names[0]} equal to {names[1]}: {left.path} and {right.path} hold the "
        f"same model, so {node.method} would change nothing; choose another."
    ]


def _name(place: int, method: MergeMethod) -> str:
    """What an input is called: A, B, C, or by its name where there is a base."""
    if method.has_base:
        return f"The {method.inputs[place].name}" if place == 0 else f"input {place}"
    return chr(ord("A") + place)


def pool_warnings(recipe: Recipe, headers: Mapping[int, Header]) -> list[str]:
    """What the user should know of the pools of a recipe; a few samples are read.

    Args:
        recipe: Without problems.
        headers: By model node index.
    """
    found: list[str] = []
    for node in recipe.nodes:
        if isinstance(node, MergeNode) and methods().get(node.method).is_pool:
            found += _node_warnings(node, methods().get(node.method), headers)
    return found


def _node_warnings(
    node: MergeNode, method: MergeMethod, headers: Mapping[int, Header]
) -> list[str]:
    pool = [headers[i] for i in node.inputs[method.n_single :] if i in headers]
    base = headers.get(node.inputs[0]) if method.has_base else None
    found = []
    if len(node.inputs) == method.min_models:
        found.append(
            f"{method.id} has a pool of one model, so there is nothing to average; "
            "give more models."
        )
    files = pool if base is None else [base, *pool]
    for group in equal_groups(files):
        names = ", ".join(files[i].path.name for i in group[:_N_NAMED])
        if len(group) > _N_NAMED:
            names += f" and {len(group) - _N_NAMED} more"
        if base is not None and group[0] == 0:
            found.append(
                f"The base is also in the pool ({names}): it takes part as a model "
                "without any change."
            )
        else:
            found.append(f"The pool holds the same model {len(group)} times: {names}.")
    if base is not None:
        found += _strange_base(base, pool)
    return found


def _strange_base(base: Header, pool: Sequence[Header]) -> list[str]:
    if len(pool) < 3:
        return []
    ratio = base_distance(base, pool)
    if ratio < _STRANGE:
        return []
    return [
        f"{base.path.name} is {ratio:.1f} times farther from the mean of the pool than "
        "the pool's models are from it, so it is hardly the model that they were "
        "trained from; with another base the deltas would be smaller and agree less."
    ]


def base_distance(base: Header, pool: Sequence[Header]) -> float:
    """How far the base lies from the pool's mean, in spreads of the pool.

    Independent fine-tunes of one base give about 1 / sqrt(N); it grows with what all
    of them have in common and the base has not. Read off samples of some large tensors.

    Args:
        base: The base's header.
        pool: Headers of three or more models.

    Returns:
        L2 distance of base and mean over the root mean square distance of the models
        from their mean; 0 where they are all equal.
    """
    import torch

    keys = sorted(
        (key for key, info in base.infos.items() if info.n_elements >= _N_VALUES),
        key=lambda key: -base.infos[key].n_elements,
    )
    keys = sorted(keys[: 8 * _N_KEYS])[
        :: max(1, min(len(keys), 8 * _N_KEYS) // _N_KEYS)
    ]
    start = _sample(base, base, keys)
    deltas = torch.stack([_sample(header, base, keys) - start for header in pool])
    mean = deltas.mean(dim=0)
    spread = (deltas - mean).square().sum(dim=1).mean().sqrt()
    ratio = torch.linalg.vector_norm(mean) / spread if spread > 0 else spread
    return float(torch.nan_to_num(ratio, nan=0.0, posinf=0.0))


def _sample(header: Header, base: Header, keys: Sequence[str]) -> Tensor:
    """A few values out of the middle of some tensors, in float64; 0 where missing."""
    import torch

    parts = []
    wanted, layout = layout_of(base), layout_of(header)
    with CheckpointReader(header) as reader:
        for key in keys:
            stored = find_stored(wanted, key, layout)
            if stored is None or stored.info.n_elements < _N_VALUES:
                parts.append(torch.zeros(_N_VALUES, dtype=torch.float64))
                continue
            middle = (stored.info.n_elements - _N_VALUES) // 2
            values = read_stored(reader, stored, middle, middle + _N_VALUES)
            parts.append(values.to(torch.float64))
    return torch.cat(parts) if parts else torch.zeros(1, dtype=torch.float64)
