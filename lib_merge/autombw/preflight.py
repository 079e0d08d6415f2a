"""Settings for a new study, everything about the models checked before work starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lib_merge.arch import architectures
from lib_merge.autombw.axes import read_space
from lib_merge.autombw.payloads import Payload
from lib_merge.autombw.space import default_ranges
from lib_merge.autombw.study import StudySettings
from lib_merge.core.method import MergeMethod
from lib_merge.core.recipe import Setting, simple_recipe
from lib_merge.errors import RecipeError
from lib_merge.methods import methods

POOL_SPACE = "weights=0..1; "
"""What is searched of a pool: only the ratios of its models' shares matter."""


def is_searchable(method: MergeMethod) -> bool:
    """Whether a study can search a method: 0 to 1 per block, over two models or more.

    Pools are not searched: a point would say nothing of single models.
    """
    spec = method.block_param
    if spec is None or method.is_pool or method.min_models < 2:
        return False
    is_number = not spec.param.is_integer
    return is_number and spec.param.low <= 0.0 and spec.param.high >= 1.0


def searched_param(method: MergeMethod) -> str:
    """The parameter that a study of this method searches.

    Raises:
        RecipeError: It has none.
    """
    spec = method.block_param
    if spec is not None and is_searchable(method):
        return spec.name
    raise RecipeError(
        [
            f"{method.label} has no parameter from 0 to 1 per block over two or more "
            "single models, so there is nothing to search; choose another method."
        ]
    )


def is_pool_searchable(method: MergeMethod) -> bool:
    """Whether a study can search the shares of a pool's models."""
    return method.is_pool and _share(method) is not None


def _share(method: MergeMethod) -> str | None:
    shares = [s.name for s in method.params if s.param.per_model]
    return "weight" if "weight" in shares else None


def _searched_setting(method: MergeMethod) -> str:
    share = _share(method) if method.is_pool else None
    return share or searched_param(method)


def new_settings(
    name: str,
    method: str,
    models: Sequence[str],
    *,
    payloads: Sequence[Payload],
    folders: Sequence[str | os.PathLike[str]] = (),
    space: str = "",
    **options: Any,
) -> StudySettings:
    """Settings of a study over some model files.

    Args:
        name: The study's name.
        method: The merge method's id.
        models: Model files, as paths or as names in `folders`.
        payloads: What is rendered.
        folders: Where checkpoints lie.
        space: What is searched, as text (see `axes`); of a pool, at least the share
            of every model is.
        options: Other fields of `StudySettings`.

    Returns:
        Settings with absolute paths, the architecture and, unless given, every
        weighted block free between 0 and 1.

    Raises:
        RecipeError: Every fault of method and models at once: missing, damaged,
            mixed architectures, shapes that differ, A equal to B.
        StudyError: An option is wrong.
        UnknownIdError: No such method, sampler or tally.
    """
    from lib_merge.engine.planning import plan_recipe

    found = methods().get(method)
    is_pool = is_pool_searchable(found)
    param = options.pop("param", None) or _searched_setting(found)
    probe = simple_recipe(method, tuple(models), {param: Setting(0.5)})
    plan = plan_recipe(probe, folders)
    architecture = architectures().get(plan.arch_id)
    present = {task.block for task in plan.tasks}
    ranges = tuple(r for r in default_ranges(architecture) if r.block in present)
    searched = read_space(
        (POOL_SPACE if is_pool else "") + space,
        method=found,
        arch=architecture,
        n_models=len(models),
        ranges=() if is_pool else tuple(options.pop("ranges", ranges)),
        known=methods().get,
    )
    return StudySettings(
        name=name,
        method=method,
        models=tuple(model.path for _, model in plan.recipe.models()),
        payloads=tuple(payloads),
        arch_id=plan.arch_id,
        ranges=searched.ranges,
        axes=searched.axes,
        methods=searched.methods,
        param=param,
        **options,
    )
