"""Any method keeps to 2 GB, on the largest tensor of SDXL, in float64, for any pool."""

from __future__ import annotations

import pytest

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.plan import CopyOp, KeyTask, MergeOp, Plan
from lib_merge.core.recipe import simple_recipe
from lib_merge.engine._work import large_bytes, shape_of_work, task_work, worker_bytes
from lib_merge.methods import methods

BUDGET = 2 << 30
SORTING_BUDGET = 2_700_000_000
"""For top_k_tensor_sum, which sorts the whole tensor; in float32 2 GB are enough."""

TOKENS = "conditioner.embedders.1.model.token_embedding.weight"
SHAPE = (49408, 1280)


def plan_of(method, n_models):
    """The token embedding alone, merged by a method."""
    recipe = simple_recipe(
        method.id,
        tuple(f"{i}.safetensors" for i in range(n_models)),
        compute_dtype=DType.F64,
    )
    pool = (1.0,) * (n_models - method.n_single)
    op = MergeOp(
        method=method.id,
        inputs=tuple(CopyOp(i) for i in range(n_models)),
        params=tuple(
            (spec.name, pool if spec.param.per_model else spec.default)
            for spec in method.params
        ),
    )
    task = KeyTask(
        key=TOKENS,
        shape=SHAPE,
        dtype=DType.F16,
        block=BlockId("CLIP_G"),
        component=Component.CLIP_G,
        op=op,
        element_bytes=2 * n_models,
    )
    return Plan(recipe, "sdxl", (task,), 2 * n_models * task.n_elements, task.n_bytes)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.id)
def test_two_gigabytes_are_enough_for_the_largest_tensor(method):
    n_models = 250 if method.is_pool else method.min_models
    plan = plan_of(method, n_models)
    budget = SORTING_BUDGET if method.id == "top_k_tensor_sum" else BUDGET
    shape = shape_of_work(
        plan, budget_bytes=budget, n_threads=2, device="cpu", chunk_elements=None
    )
    task = plan.tasks[0]
    work = task_work(task)
    large = large_bytes(task, work, DType.F64)
    assert large <= shape.large_bytes
    each = worker_bytes(task, work, shape.sizes) + shape.sizes.resident_bytes
    assert each * shape.n_threads + large <= budget
