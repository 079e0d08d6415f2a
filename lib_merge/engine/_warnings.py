"""What a run found in the models, in words for the user."""

from __future__ import annotations

from pathlib import Path

from lib_merge.core.plan import Plan
from lib_merge.engine.run import RunReport


def run_warnings(plan: Plan, report: RunReport) -> tuple[str, ...]:
    """What a run found in the models that the user should know.

    Args:
        plan: What was run.
        report: Of that run.
    """
    found = []
    if report.n_resumed:
        share = report.n_resumed / sum(task.n_elements for task in plan.tasks)
        found.append(f"Went on with a merge that was killed when {share:.0%} was done.")
    keys = report.non_finite_keys
    if keys:
        found.append(
            f"{len(keys)} keys hold NaN or infinity in a model and therefore in the "
            f"result ({', '.join(keys[:3])}); check that model with `inspect`."
        )
    names = {index: Path(model.path).name for index, model in plan.recipe.models()}
    by_model: dict[int, list[tuple[str, int]]] = {}
    for key, model, n_bad in report.left_out:
        by_model.setdefault(model, []).append((key, n_bad))
    for model, places in by_model.items():
        listed = ", ".join(f"{key}: {n} values" for key, n in places[:3])
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        found.append(
            f"{names[model]} was left out for {len(places)} keys in which it holds NaN "
            f"or infinity ({listed}{more})."
        )
    return tuple(found)
