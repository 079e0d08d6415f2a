"""Inspections as HTML: the table of all models, one in full, and planned repairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib_merge.errors import CheckpointError, MergeError
from lib_merge.ui import markup

if TYPE_CHECKING:
    from lib_merge.analysis.health.convert import ConvertPlan
    from lib_merge.analysis.health.inspection import Inspection, Part
    from lib_merge.analysis.health.repair import RepairPlan
    from lib_merge.ui.inspecting import Model

MAX_ROWS = 250
"""Models that the table shows at once; the filter reaches all others."""

SORTS: Mapping[str, Callable[[Inspection], Any]] = {
    "name": lambda found: "",
    "size, largest first": lambda found: -found.n_bytes,
    "architecture": lambda found: kind_of(found).lower(),
    "precision": lambda found: found.precision,
    "problems, most first": lambda found: -n_problems(found),
}
"""Orders of the table, by what they are called here."""

_MAX_SENTENCES = 40
_MAX_TEXTS = 60
_MAX_CHARACTERS = 300
_N_NAMED = 4
_SCHEDULE = "schedule"

_REMEDIES = {
    "schedule": "the repair leaves it out if noise schedule constants are ticked",
    "unknown": "the repair leaves it out if unknown keys are ticked",
    "absent": "the repair takes it from a base model if whole components are ticked",
    "missing": "the repair takes it from a base model",
    "misshapen": "the repair reshapes it, or takes it from a base model",
    "scaled": "converting to float16 multiplies them out",
    "non_finite": "the repair takes it from a base model",
    "dead": "the repair takes it from a base model if all-zero tensors are ticked",
}
"""What the page's controls do about defects, where a command has options for it."""


def in_tab_words(sentence: str) -> str:
    """A sentence of a command's with the page's controls in place of its options."""
    from lib_merge.analysis.health.defects import Defect

    for name, words in _REMEDIES.items():
        old = f"; {Defect(name).remedy}."
        if sentence.endswith(old):
            return sentence.removesuffix(old) + f"; {words}."
    return sentence.replace("--unscaled with fp8_e5m2", "float8_e5m2 without scales")


def n_problems(found: Inspection) -> int:
    """How many things a user should act on."""
    return len(found.all_problems())


def kind_of(found: Inspection) -> str:
    """The architecture and what sets the model apart from its usual ones."""
    if found.error is not None:
        return "cannot be read"
    return ", ".join((found.contents.label, *found.contents.kin))


def listed(models: Iterable[Model], text: str, order: str) -> list[Model]:
    """The models that fit a filter, in an order.

    Args:
        models: All of them.
        text: Words; a model fits that has each in its title, folder, architecture,
            precision or components.
        order: One of `SORTS`.
    """
    words = text.lower().split()
    fitting = [m for m in models if all(word in _searched(m) for word in words)]
    key = SORTS[order]
    return sorted(fitting, key=lambda model: (key(model.found), model.title.lower()))


def _searched(model: Model) -> str:
    found = model.found
    parts = (part.component for part in found.contents.parts)
    where = (model.title, found.path.parent.name)
    return " ".join((*where, kind_of(found), found.precision, *parts)).lower()


def table_html(models: Sequence[Model], text: str, order: str) -> str:
    """The table of all models that fit a filter, one row each.

    A row's name is a button; `javascript/merge_models.js` makes it choose the model.
    """
    if not models:
        return markup.empty("No model was looked at yet.")
    fitting = listed(models, text, order)
    if not fitting:
        return markup.empty("No model has these words in name, folder or kind.")
    shown = fitting[:MAX_ROWS]
    n_bad = sum(n_problems(model.found) > 0 for model in fitting)
    total = markup.size(sum(model.found.n_bytes for model in fitting))
    told = f"{markup.count(len(fitting), 'model')}, {total}; {n_bad} with problems."
    if len(fitting) > len(shown):
        told += f" The first {len(shown)} are shown; filter for others."
    heads = ("Model", "Architecture", "Size", "Precision", "Components", "Problems")
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(map(_row, shown))
    table = (
        f'<table class="merge-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    return f'<div class="merge-source">{told}</div>' + markup.scroll(table, "Models")


def _row(model: Model) -> str:
    found = model.found
    title = markup.text(model.title)
    cells = (
        kind_of(found),
        markup.size(found.n_bytes),
        found.precision,
        _components(found),
        n_problems(found) or "none",
    )
    return (
        f'<tr><td><button type="button" data-merge-pick="{title}">{title}</button></td>'
        + "".join(f"<td>{markup.text(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _components(found: Inspection) -> str:
    names = [
        f"{part.component} (incomplete)" if part.n_missing else part.component
        for part in found.contents.parts
        if part.component != _SCHEDULE
    ]
    return ", ".join(names) or "-"


def details_html(model: Model | None) -> str:
    """Everything that is known of one model."""
    if model is None:
        return markup.empty("Choose a model to see what it holds.")
    found = model.found
    if found.error is not None:
        return _heading(model.title) + markup.errors([found.error])
    return "".join(
        (
            _heading(model.title),
            f'<div class="merge-note">{markup.lines(_facts(found))}</div>',
            _defects(found),
            _parts(found),
            _history(found),
            _metadata(found),
        )
    )


def _heading(text: str) -> str:
    return f'<div class="merge-heading">{markup.text(text)}</div>'


def _facts(found: Inspection) -> Iterator[str]:
    contents = found.contents
    yield (
        f"{kind_of(found)}; {markup.size(found.n_bytes)}, "
        f"{markup.count(found.n_keys, 'tensor')}, "
        f"{markup.count(contents.n_params, 'parameter')}."
    )
    types = (f"{number:,} {name}" for name, number in contents.dtypes.items())
    yield f"Tensors by precision: {', '.join(types)}."
    if contents.n_ema_params:
        n_ema = markup.count(contents.n_ema_params, "EMA parameter")
        yield f"{n_ema} beside the model."
    yield f"File: {found.path}" + (f"; sha256 {found.sha256}" if found.sha256 else "")


def _defects(found: Inspection) -> str:
    problems = [in_tab_words(text) for text in found.all_problems()]
    notes = [in_tab_words(text) for text in found.notes()]
    if not found.is_deep:
        notes.append(
            "Values were not read: 'Read every value' looks for NaN, dead tensors and "
            "wrong position ids, and hashes each component."
        )
    elif not problems:
        notes.insert(0, "Every value was read; nothing is wrong.")
    bad = (
        f'<div class="merge-note merge-warn">{markup.lines(_few(problems))}</div>'
        if problems
        else ""
    )
    good = f'<div class="merge-note">{markup.lines(notes)}</div>' if notes else ""
    return bad + good


def _few(sentences: Sequence[str]) -> list[str]:
    n_more = len(sentences) - _MAX_SENTENCES
    more = [f"And {n_more} more."] if n_more > 0 else []
    return [*sentences[:_MAX_SENTENCES], *more]


def _parts(found: Inspection) -> str:
    if not found.contents.parts:
        return ""
    rows = [
        (
            part.component,
            "/".join(part.dtypes),
            f"{part.n_keys:,}",
            f"{part.n_params:,}",
            markup.size(part.n_bytes),
            part.digest or ("-" if found.is_deep else "not read yet"),
            _remark(part),
        )
        for part in found.contents.parts
    ]
    heads = ("Component", "Precision", "Tensors", "Parameters", "Size", "Hash", "Notes")
    return markup.scroll(markup.table(heads, rows), "Components")


def _remark(part: Part) -> str:
    words = []
    if part.n_missing:
        words.append(f"{markup.count(part.n_missing, 'key')} missing")
    if part.same_as:
        n_more = len(part.same_as) - _N_NAMED
        more = f" and {n_more} more" if n_more > 0 else ""
        words.append(f"same values as {', '.join(part.same_as[:_N_NAMED])}{more}")
    return "; ".join(words)


def _history(found: Inspection) -> str:
    told = list(found.histories)
    if found.recipe is not None:
        told.insert(0, recipe_line(found.recipe))
    if not told:
        return ""
    return _heading("How it was made") + (
        f'<div class="merge-note">{markup.lines(told)}</div>'
    )


def recipe_line(data: Any) -> str:
    """A MergeLab recipe by the names of its methods and models."""
    from lib_merge.core.recipe import MergeNode, Recipe
    from lib_merge.methods import methods

    try:
        recipe = Recipe.from_json(data)
        merges = [node for node in recipe.nodes if isinstance(node, MergeNode)]
        used = dict.fromkeys(methods().get(node.method).label for node in merges)
    except MergeError as fault:
        return f"MergeLab recipe that cannot be read: {fault}"
    names = list(dict.fromkeys(str(model.path) for _, model in recipe.models()))
    n_more = len(names) - _MAX_SENTENCES
    more = f" and {n_more} more" if n_more > 0 else ""
    return (
        f"MergeLab recipe {recipe.digest()}: {', '.join(used) or 'copy'} of "
        f"{', '.join(names[:_MAX_SENTENCES])}{more}."
    )


def _metadata(found: Inspection) -> str:
    if not found.metadata:
        return ""
    rows = []
    for name, text in list(found.metadata.items())[:_MAX_TEXTS]:
        shown = text[:_MAX_CHARACTERS]
        more = f" ... ({len(text):,} characters)" if shown != text else ""
        rows.append((name[:_MAX_CHARACTERS], shown + more))
    n_more = len(found.metadata) - len(rows)
    if n_more > 0:
        rows.append(("...", f"and {n_more} more"))
    table = markup.scroll(markup.table(("Name", "Text"), rows), "Metadata")
    title = f"Metadata, {len(found.metadata)} " + (
        "entry" if len(found.metadata) == 1 else "entries"
    )
    return f"<details><summary>{title}</summary>{table}</details>"


def diagram_html(model: Model | None) -> str:
    """The model's blocks, drawn from its header; "" where there is nothing to draw."""
    from lib_merge.analysis.anatomy import anatomy_of_file
    from lib_merge.analysis.diagram import diagram
    from lib_merge.analysis.drawing import to_svg

    if model is None or model.found.contents.arch_id is None:
        return markup.empty("Blocks are drawn of a model of a known architecture.")
    try:
        drawing = diagram(anatomy_of_file(model.found.path))
    except CheckpointError as fault:
        return markup.errors([str(fault)])
    return f'<div class="merge-figure">{to_svg(drawing, is_file=False)}</div>'


def repair_html(plan: RepairPlan) -> str:
    """What a repair would do, and what it would leave."""
    done = [f"Would {sentence}." for sentence in plan.sentences()]
    left = [f"Not mended: {in_tab_words(sentence)}" for sentence in plan.left]
    if not done:
        said = markup.note("Nothing would be mended.")
    else:
        written = f"Would write about {markup.size(plan.job.n_bytes)}."
        lines = markup.lines([*_few(done), written])
        said = f'<div class="merge-note">{lines}</div>'
    if left:
        said += f'<div class="merge-note merge-warn">{markup.lines(_few(left))}</div>'
    return said


def convert_html(plan: ConvertPlan) -> str:
    """What a conversion would do."""
    size = markup.size(plan.job.n_bytes)
    done = [f"{sentence}." for sentence in plan.sentences]
    done = done or ["Every tensor has this precision already."]
    said = markup.lines([*done, f"Would write about {size}."])
    warnings = [in_tab_words(sentence) for sentence in plan.warnings]
    warned = (
        f'<div class="merge-note merge-warn">{markup.lines(warnings)}</div>'
        if warnings
        else ""
    )
    return f'<div class="merge-note">{said}</div>{warned}'
