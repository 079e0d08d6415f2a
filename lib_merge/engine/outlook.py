"""What a run will take, said before it starts: passes, bytes read, memory."""

from __future__ import annotations

from dataclasses import dataclass

from lib_merge.core.plan import CopyOp, Plan
from lib_merge.engine._work import (
    large_bytes,
    leaves_out,
    shape_of_work,
    task_work,
    worker_bytes,
)
from lib_merge.engine.run import RunOptions


@dataclass(frozen=True)
class Outlook:
    """What a run takes, as far as the headers tell.

    Attributes:
        n_threads: Threads that will work.
        n_passes: Passes over most of the merged tensors, the merging one included.
        n_bytes_read: Bytes that will be read; more than the models have where tensors
            too large to keep are gone over several times.
        memory_bytes: Most memory for buffers, Python and torch apart.
    """

    n_threads: int
    n_passes: int
    n_bytes_read: int
    memory_bytes: int


def outlook_of(plan: Plan, options: RunOptions | None = None) -> Outlook:
    """What running a plan will take.

    Args:
        plan: From `plan_recipe`.
        options: As for `run_plan`.

    Raises:
        InputError: The budget is too small for this plan.
    """
    options = options or RunOptions()
    shape = shape_of_work(
        plan,
        budget_bytes=options.budget_bytes,
        n_threads=options.n_threads,
        device=options.device,
        chunk_elements=options.chunk_elements,
    )
    is_leaving_out = leaves_out(plan)
    n_read, most, largest, passes = 0, 0, 0, [1]
    for task in plan.tasks:
        work = task_work(task, is_leaving_out=is_leaving_out)
        n_bytes = task.n_elements * task.element_bytes
        is_resident = n_bytes <= shape.sizes.resident_bytes or task.n_elements <= max(
            shape.sizes.chunk, work.run
        )
        n_read += n_bytes * (1 if is_resident else 1 + work.n_passes)
        most = max(most, worker_bytes(task, work, shape.sizes))
        largest = max(largest, large_bytes(task, work, plan.recipe.compute_dtype))
        if not isinstance(task.op, CopyOp):
            passes.append(1 + work.n_passes)
    each = most + shape.sizes.resident_bytes * (max(passes) > 1)
    return Outlook(
        n_threads=shape.n_threads,
        n_passes=sorted(passes)[len(passes) // 2],
        n_bytes_read=n_read,
        memory_bytes=each * shape.n_threads + largest,
    )
