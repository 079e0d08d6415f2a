"""Merges: what one will do, into the loaded model, into a file, and back."""

from __future__ import annotations

from pathlib import Path

from lib_merge.api._call import Answer, Call, Endpoint, Json
from lib_merge.api._fields import Field, Kind
from lib_merge.api._merge_form import FIELDS, recipe_in
from lib_merge.api._paths import output_file
from lib_merge.api.jobs import started
from lib_merge.core.plan import CopyOp, Plan
from lib_merge.core.recipe import Recipe
from lib_merge.ui.summary import effort_of, rule_lines, sentence_of

FILE = (
    Field("file", Kind.TEXT, "a name inside the output folder", is_required=True),
    Field("overwrite", Kind.FLAG, "replace a file that is there", default=False),
)
"""Where a merge is saved."""


def _planned(recipe: Recipe, call: Call) -> Plan:
    from lib_merge.engine.planning import plan_recipe

    return plan_recipe(recipe, call.workspace.folders())


def _plan(call: Call) -> Answer:
    plan = _planned(recipe_in(call), call)
    n_copied = sum(isinstance(task.op, CopyOp) for task in plan.tasks)
    return Json(
        {
            "recipe": plan.recipe.digest(),
            "sentence": sentence_of(plan),
            "effort": effort_of(plan, call.workspace.preferences.run_options()),
            "architecture": plan.arch_id,
            "n_merged": len(plan.tasks) - n_copied,
            "n_copied": n_copied,
            "bytes_read": plan.n_bytes_in,
            "bytes_written": plan.n_bytes_out,
            "rules": rule_lines(plan),
            "warnings": list(plan.warnings),
            "recipe_json": plan.recipe.to_json(),
        }
    )


def _load(call: Call) -> Answer:
    recipe = recipe_in(call)
    _planned(recipe, call)
    call.workspace.load(recipe)
    return started(call)


def _save(call: Call) -> Answer:
    recipe = recipe_in(call)
    save(recipe, call)
    return started(call)


def save(recipe: Recipe, call: Call, **options: str) -> None:
    """Start a merge into the file that a request names; see FILE.

    Raises:
        Refusal: The name leaves the output folder.
        OutputError: The file is there, or cannot be written.
        RecipeError: Everything wrong with the recipe.
    """
    from lib_merge.checkpoint.outputs import check_disk, check_output

    target = output_file(call.values["file"], call)
    is_replaced = call.values["overwrite"]
    plan = _planned(recipe, call)
    inputs = [Path(node.path) for _, node in plan.recipe.files()]
    check_output(target, inputs, overwrite=is_replaced)
    check_disk(target, plan.n_bytes_out)
    call.workspace.save(recipe, target, overwrite=is_replaced, **options)


def _restore(call: Call) -> Answer:
    call.workspace.restore()
    return started(call)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/merge/plan",
        "plan_merge",
        "Check a merge and say what it will do; nothing is started",
        _plan,
        answer="Plan",
        body=FIELDS,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/merge/load",
        "load_merge",
        "Merge into the loaded model, without a file",
        _load,
        answer="Job",
        body=FIELDS,
        status=202,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/merge/save",
        "save_merge",
        "Merge into a checkpoint in the host's output folder",
        _save,
        answer="Job",
        body=(*FIELDS, *FILE),
        status=202,
        errors=(404, 409),
    ),
    Endpoint(
        "POST",
        "/restore",
        "restore_model",
        "Put back what was loaded before the merge, with its own weights",
        _restore,
        answer="Job",
        status=202,
        errors=(409,),
    ),
)
