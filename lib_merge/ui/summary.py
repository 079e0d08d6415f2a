"""What a merge will do, in one sentence, with every problem, before it runs."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.arch import architectures
from lib_merge.core.blocks import Architecture
from lib_merge.core.plan import CopyOp, Plan
from lib_merge.core.recipe import MergeNode, ModelNode, Recipe, Rule, SelectNode
from lib_merge.errors import MergeError, RecipeError
from lib_merge.methods import methods
from lib_merge.ui import markup
from lib_merge.ui.form import MergeForm, input_name, input_symbol, recipe_of
from lib_merge.ui.jobs import describe_bug
from lib_merge.ui.workspace import Workspace

if TYPE_CHECKING:
    from lib_merge.engine.run import RunOptions

_log = logging.getLogger(__name__)

_N_NAMED = 6
"""Models that the sentence names; of a large pool the first ones."""


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
        return markup.note(f"Choose {names} to see what the merge will do.")
    from lib_merge.engine.planning import plan_recipe

    try:
        recipe = recipe_of(form, workspace.host.catalog)
        plan = plan_recipe(recipe, workspace.folders())
        words = describe(plan, workspace.preferences.run_options())
        return words + _room(plan, workspace.host.catalog.output_dir())
    except RecipeError as fault:
        return markup.errors(fault.problems)
    except MergeError as fault:
        return markup.errors([str(fault)])
    except Exception as fault:
        # A WebUI callback: a traceback in a pop-up would help nobody.
        _log.exception("planning failed")
        return markup.errors([describe_bug(fault)])


def describe(plan: Plan, options: RunOptions | None = None) -> str:
    """The sentence, what each rule catches, and the plan's warnings, as HTML.

    Args:
        plan: What will be run.
        options: How; None for the engine's own.
    """
    words = markup.lines(filter(None, (sentence_of(plan), effort_of(plan, options))))
    sentence = f'<div class="merge-note">{words}</div>'
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
    n_models = len(recipe.models())
    n_copied = sum(isinstance(task.op, CopyOp) for task in plan.tasks)
    n_merged = len(plan.tasks) - n_copied
    arch = architectures().get(plan.arch_id).label
    kinds = Counter(task.dtype.torch_name for task in plan.tasks if task.dtype.is_float)
    stored = kinds.most_common(1)[0][0] if kinds else "its own types"
    label, named, first = _main_merge(recipe)
    return (
        f"{label} of {markup.count(n_models, 'model')} ({arch}; {named}){_more(recipe)}"
        f": blends {markup.count(n_merged, 'tensor')}, copies {n_copied:,} from "
        f"{first}, computes in {recipe.compute_dtype.torch_name}, stores {stored}; "
        f"reads {markup.size(plan.n_bytes_in)}, the result has "
        f"{markup.size(plan.n_bytes_out)}. Recipe {recipe.digest()}."
    )


def _main_merge(recipe: Recipe) -> tuple[str, str, str]:
    """The first merge's label, its models by name, and what the first one is called."""
    merge = next((n for n in recipe.nodes if isinstance(n, MergeNode)), None)
    if merge is None:
        return "Copy", Path(recipe.models()[0][1].path).stem, "it"
    method = methods().get(merge.method)
    models = dict(recipe.models())
    symbols = [input_symbol(method, place) for place in range(len(merge.inputs))]
    named = [
        f"{symbol} = {Path(models[index].path).stem}"
        for symbol, index in zip(symbols, merge.inputs, strict=True)
        if index in models
    ]
    if len(named) > _N_NAMED + 1:
        n_more = len(named) - _N_NAMED
        named = [*named[:_N_NAMED], f"and {n_more} more"]
    first = input_name(method, 0).removeprefix("model ")
    return (
        method.label,
        ", ".join(named),
        first if method.n_single else "the first model",
    )


def _more(recipe: Recipe) -> str:
    """What follows the first merge, and what comes from elsewhere."""
    last = recipe.nodes[-1]
    picked = last.inputs[1:] if isinstance(last, SelectNode) else ()
    merges = [i for i, n in enumerate(recipe.nodes) if isinstance(n, MergeNode)]
    texts = [f"then {_name_of(recipe, i)}" for i in merges[1:] if i not in picked]
    if isinstance(last, SelectNode):
        texts += [
            f"{' '.join(pick.blocks)} from {_name_of(recipe, last.inputs[pick.input])}"
            for pick in last.picks
        ]
    return "".join(f", {text}" for text in texts)


def _name_of(recipe: Recipe, index: int) -> str:
    node = recipe.nodes[index]
    if isinstance(node, ModelNode):
        return Path(node.path).stem
    return methods().get(node.method).label if isinstance(node, MergeNode) else "a pick"


def effort_of(plan: Plan, options: RunOptions | None = None) -> str:
    """What running the plan takes; "" where that goes without saying.

    Raises:
        InputError: The memory budget is too small for it.
    """
    from lib_merge.engine.outlook import outlook_of

    found = outlook_of(plan, options)
    if found.n_passes < 2 and found.n_bytes_read <= plan.n_bytes_in:
        return ""
    return (
        f"Goes {found.n_passes} times over most tensors, reads "
        f"{markup.size(found.n_bytes_read)} for that, and takes at most "
        f"{markup.size(found.memory_bytes)} of buffers."
    )


def rule_lines(plan: Plan) -> list[str]:
    """For each rule, how many tensors it catches."""
    arch = architectures().get(plan.arch_id)
    nodes = [node for node in plan.recipe.nodes if isinstance(node, MergeNode)]
    with_rules = [
        (name, setting.rules)
        for node in nodes
        for name, setting in node.params
        if setting.rules
    ]
    lines = []
    for name, rules in with_rules:
        which = f"of {name} " if len(with_rules) > 1 else ""
        for number, rule in enumerate(rules, 1):
            n_keys = _n_caught(plan, rule, arch)
            caught = markup.count(n_keys, "tensor")
            lines.append(f"Rule {number} {which}catches {caught}.")
    return lines


def _n_caught(plan: Plan, rule: Rule, arch: Architecture) -> int:
    blocks = tuple(block for name in rule.blocks for block in arch.expand(name))
    single = replace(rule, blocks=blocks)
    return sum(
        single.matches(task.key, task.block)
        for task in plan.tasks
        if not isinstance(task.op, CopyOp)
    )


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
