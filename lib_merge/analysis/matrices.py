"""Reads the published distance matrices: JSON with `ml`, `cm` and `dm`.

Form: 6DammK9/nai-anime-pure-negative-prompt (e93302b), ch03/v2a/json. `ml` lists the
models' file names, `dm` has an N x N matrix of L2 distances for each of te, te0, te1,
vae, unet and other, and `cm` lists the compared pairs with their paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lib_merge.analysis.comparison import Comparison
from lib_merge.analysis.pairs import PairSums
from lib_merge.errors import InputError

_ORDER = ("te", "te0", "te1", "unet", "vae", "other")
_ASYMMETRY = 1e-6


def is_published(data: Any) -> bool:
    """Whether parsed JSON looks like one of these."""
    return isinstance(data, Mapping) and {"ml", "dm"} <= set(data)


def read_published(data: Mapping[str, Any], where: str) -> Comparison:
    """A comparison from a published matrix; only distances are known of it.

    Args:
        data: Parsed JSON.
        where: Its file, for messages.

    Raises:
        InputError: Anything in it is not as the form says.
    """
    names = data["ml"]
    if not _is_names(names):
        raise InputError(
            f"{where}: `ml` must list two or more different model names; it is damaged."
        )
    if not isinstance(data["dm"], Mapping) or not data["dm"]:
        raise InputError(f"{where}: `dm` must hold matrices by component.")
    matrices = {
        part: _matrix(rows, len(names), f"{where}, dm.{part}")
        for part, rows in data["dm"].items()
    }
    parts = [part for part in _ORDER if part in matrices]
    parts += [part for part in matrices if part not in _ORDER]
    # A part of zeros only is one that all models share, or that none of them has.
    used = [part for part in parts if matrices[part].any()] or parts
    nothing = np.full(len(names), np.nan)
    return Comparison(
        names=tuple(PurePosixPath(n).name.removesuffix(".safetensors") for n in names),
        base=0,
        components={
            part: PairSums(0, 0, nothing, matrices[part] ** 2) for part in used
        },
        paths=_paths(data.get("cm"), len(names)),
        architecture="published matrix",
    )


def _is_names(names: Any) -> bool:
    return (
        isinstance(names, list)
        and len(names) > 1
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
    )


def _matrix(rows: Any, n_models: int, where: str) -> Any:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as fault:
        raise InputError(f"{where} is no matrix of numbers ({fault}).") from fault
    if matrix.shape != (n_models, n_models):
        raise InputError(
            f"{where} has the shape {list(matrix.shape)}, but `ml` names {n_models} "
            "models; the file is damaged."
        )
    if not np.isfinite(matrix).all() or (matrix < 0).any() or matrix.diagonal().any():
        raise InputError(
            f"{where} holds what is no distance (negative, not finite, or a model away "
            "from itself); the file is damaged."
        )
    if np.abs(matrix - matrix.T).max() > _ASYMMETRY * max(matrix.max(), 1e-300):
        raise InputError(f"{where} is not symmetric; the file is damaged.")
    return (matrix + matrix.T) / 2


def _paths(pairs: Any, n_models: int) -> tuple[str, ...]:
    """The models' paths out of the compared pairs (`m0`, `m1` ...), or nothing."""
    found: dict[str, str] = {}
    try:
        for _, compared in pairs or ():
            for pair in compared:
                found.update((str(mark), str(path)) for mark, path in pair)
    except (TypeError, ValueError):
        return ()
    paths = [found.get(f"m{i}") for i in range(n_models)]
    return tuple(p for p in paths if p is not None) if None not in paths else ()
