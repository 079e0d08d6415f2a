"""What a merge will do, in one sentence, with every problem, before it runs."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

from lib_merge.arch import architectures
from lib_merge.core.plan import CopyOp, Plan
from lib_merge.core.recipe import MergeNode, Recipe, Setting
from lib_merge.errors import MergeError, RecipeError
from lib_merge.methods import methods
from lib_merge.ui import markup
from lib_merge.ui.form import MergeForm, letter, recipe_of
from lib_merge.ui.jobs import describe_bug
from lib_merge.ui.workspace import Workspace

_log = logging.getLogger(__name__)


def outlook(form: MergeForm, workspace: Workspace) -> str:
    """The summary of a form: the sentence, the warnings, or every problem.

    Never raises: it is shown while the user is still choosing.
    """
    heading = '<div class="merge-heading">What will happen</div>'
    return heading + _outlook(form, workspace)


def _outlook(form: MergeForm, workspace: Workspace) -> str:
    missing = form.missing_models()
    if missing:
        names = " and ".join(missing)
        noun = "model" if len(missing) == 1 else "models"
        return markup.note(f"Choose {noun} {names} to see what the merge will do.")
    from lib_merge.engine.planning import plan_recipe

    try:
        recipe = recipe_of(form, workspace.host.catalog)
        plan = plan_recipe(recipe, workspace.folders())
    except RecipeError as fault:
        return markup.errors(fault.problems)
    except MergeError as fault:
        return markup.errors([str(fault)])
    except Exception as fault:
        # A WebUI callback: a traceback in a pop-up would help nobody.
        _log.exception("planning failed")
        return markup.errors([describe_bug(fault)])
    return describe(plan) + _room(plan, workspace.host.catalog.output_dir())


def describe(plan: Plan) -> str:
    """The sentence, what each rule catches, and the plan's warnings, as HTML."""
    sentence = f'<div class="merge-note">{markup.text(sentence_of(plan))}</div>'
    rules = markup.lines(rule_lines(plan))
    warnings = markup.lines(plan.warnings)
    parts = [sentence]
    if rules:
        parts.append(f'<div class="merge-note">{rules}</div>')
    if warnings:
        parts.append(f'<div class="merge-note merge-warn">{warnings}</div>')
    return "".join(parts)


def sentence_of(plan: Plan) -> str:
    """What the plan will do, in one sentence."""
    recipe = plan.recipe
    merge = recipe.nodes[-1]
    names = [Path(node.path).stem for _, node in recipe.models()]
    n_copied = sum(isinstance(task.op, CopyOp) for task in plan.tasks)
    n_merged = len(plan.tasks) - n_copied
    label = "Copy"
    if isinstance(merge, MergeNode):
        label = methods().get(merge.method).label
    arch = architectures().get(plan.arch_id).label
    named = ", ".join(f"{letter(i)} = {name}" for i, name in enumerate(names))
    kinds = Counter(task.dtype.torch_name for task in plan.tasks if task.dtype.is_float)
    stored = kinds.most_common(1)[0][0] if kinds else "its own types"
    return (
        f"{label} of {markup.count(len(names), 'model')} ({arch}; {named}): blends "
        f"{markup.count(n_merged, 'tensor')}, copies {n_copied:,} from A, computes in "
        f"{recipe.compute_dtype.torch_name}, stores {stored}; reads "
        f"{markup.size(plan.n_bytes_in)}, the result has "
        f"{markup.size(plan.n_bytes_out)}. Recipe {recipe.digest()}."
    )


def rule_lines(plan: Plan) -> list[str]:
    """For each rule, how many tensors it catches."""
    lines = []
    for setting in _settings(plan.recipe):
        for number, rule in enumerate(setting.rules, 1):
            n_keys = sum(
                rule.matches(task.key, task.block)
                for task in plan.tasks
                if not isinstance(task.op, CopyOp)
            )
            lines.append(f"Rule {number} catches {markup.count(n_keys, 'tensor')}.")
    return lines


def _settings(recipe: Recipe) -> list[Setting]:
    nodes = (node for node in recipe.nodes if isinstance(node, MergeNode))
    return [setting for node in nodes for _, setting in node.params]


def _room(plan: Plan, folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        # The folder comes into being with the first save.
        return ""
    if free > plan.n_bytes_out:
        return ""
    return markup.errors(
        [
            f"Saving needs {markup.size(plan.n_bytes_out)}, but {folder} has only "
            f"{markup.size(free)} free; make room, or merge and load without a file."
        ]
    )
