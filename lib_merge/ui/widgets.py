"""Controls made from declarations: a parameter's slider, a method's explanation."""

from __future__ import annotations

import re
from collections import Counter
from enum import Enum
from typing import Any

import gradio as gr

from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.core.runs import Over
from lib_merge.methods import methods
from lib_merge.ui import compat, markup
from lib_merge.ui.form import input_name, letter

_ARGUMENT = re.compile(r"^    (?P<name>\w+): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)


MAX_STEPS = 4000
"""Parameters with more steps (a seed, a tolerance) get a box instead of a slider."""


class Kind(Enum):
    """What control a parameter gets; the value names its place on the page."""

    SLIDER = "param"
    NUMBER = "number"
    CHOICE = "choice"
    EACH = "each"
    """One number for each model of the pool, as text."""


def kind_of(spec: ParamSpec) -> Kind:
    """The control that fits a parameter."""
    if spec.param.per_model:
        return Kind.EACH
    if spec.param.choices:
        return Kind.CHOICE
    n_steps = (spec.param.high - spec.param.low) / spec.param.step
    return Kind.SLIDER if n_steps <= MAX_STEPS else Kind.NUMBER


def slots(kind: Kind) -> list[tuple[str, ...]]:
    """What the controls of a kind can show, one entry a control.

    A control shows a parameter of whichever method is chosen. Choices get a control
    for each set of names: Gradio checks a value against the names it last sent, and a
    page that has not got them yet would be refused.
    """
    most: dict[tuple[str, ...], int] = {}
    for method in methods():
        found = Counter(s.param.choices for s in method.params if kind_of(s) is kind)
        most |= {names: max(n, most.get(names, 0)) for names, n in found.items()}
    return [names for names in sorted(most) for _ in range(most[names])]


def placed(method: MergeMethod, kind: Kind) -> list[ParamSpec | None]:
    """A method's parameter, or None, for each control of a kind."""
    waiting = [spec for spec in method.params if kind_of(spec) is kind]
    found: list[ParamSpec | None] = []
    for names in slots(kind):
        spec = next((s for s in waiting if s.param.choices == names), None)
        found.append(spec)
        if spec is not None:
            waiting.remove(spec)
    return found


def param_control(kind: Kind, index: int, spec: ParamSpec | None) -> Any:
    """The control by its place among those of its kind; hidden without a parameter."""
    component, plain = _COMPONENTS[kind]
    options = {**plain, **dressed(kind, spec)}
    if kind is Kind.CHOICE:
        names = list(slots(kind)[index])
        options = {"choices": names, "value": names[0], **options}
    return compat.make(
        component,
        elem_id=f"merge-{kind.value}-{index}",
        elem_classes=["merge-param"],
        interactive=True,
        min_width=240,
        **{"label": f"{index + 1}", **options},
    )


_COMPONENTS: dict[Kind, tuple[Any, dict[str, Any]]] = {
    Kind.SLIDER: (gr.Slider, {"minimum": 0.0, "maximum": 1.0, "value": 0.0}),
    Kind.NUMBER: (gr.Number, {"value": 0}),
    Kind.CHOICE: (gr.Dropdown, {"value": None}),
    Kind.EACH: (gr.Textbox, {"value": "", "lines": 1, "max_lines": 4}),
}


def dressed(kind: Kind, spec: ParamSpec | None) -> dict[str, Any]:
    """Options that turn a control into this parameter's, or hide it."""
    if spec is None:
        return {"visible": False}
    shown = {"visible": True, "label": spec.name, "info": spec.param.help or None}
    if kind is Kind.EACH:
        equal = f"empty: {spec.default:g} for all"
        return {**shown, "value": "", "placeholder": f"0.5, 0.3, 0.2   {equal}"}
    if kind is Kind.CHOICE:
        return {**shown, "value": spec.text_of(spec.default)}
    limits = {"minimum": spec.param.low, "maximum": spec.param.high}
    step = 1 if spec.param.is_integer else spec.param.step
    number = int(spec.default) if spec.param.is_integer else spec.default
    if kind is Kind.NUMBER:
        return {**shown, "value": number}
    return {**shown, **limits, "step": step, "value": number}


def opening_value(kind: Kind, spec: ParamSpec | None) -> Any:
    """What a control holds when its method has just been chosen."""
    return dressed(kind, spec).get("value", _COMPONENTS[kind][1]["value"])


def number_of(spec: ParamSpec, value: Any) -> float:
    """The parameter's value that a control shows; the default where it is none.

    So it is for a moment after a change of method: the control still shows what it
    was for before.
    """
    named = spec.value_of(str(value))
    try:
        return float(value) if named is None else named
    except (TypeError, ValueError):
        return spec.default


def method_choices() -> list[str]:
    """Labels of all methods, by label."""
    return sorted(method.label for method in methods())


def method_by_label(label: str) -> MergeMethod:
    """The method that a label stands for."""
    by_label = {method.label: method for method in methods()}
    return by_label[label] if label in by_label else methods().get(label)


def explanation(method: MergeMethod) -> str:
    """A method's line, formula and paper, as HTML."""
    line = method.doc.partition("\n")[0]
    if method.over is Over.TENSOR:
        line += " Slow: it works on whole tensors."
    return (
        f'<div class="merge-method"><span>{markup.text(line)}</span> '
        f"<code>{markup.text(method.formula)}</code>"
        f'<div class="merge-source">{_linked(method.source)}</div></div>'
    )


def input_options(method: MergeMethod, index: int) -> dict[str, Any]:
    """Label, help and visibility of a model's list, by its place."""
    is_shown = index < method.n_single
    name = input_name(method, index).removeprefix("the ") if is_shown else ""
    return {
        "visible": is_shown,
        "label": name[:1].upper() + name[1:] if name else letter(index),
        "info": (input_help(method, index) or None) if is_shown else None,
    }


def input_help(method: MergeMethod, index: int) -> str:
    """What one input is for, out of the method's docstring; "" when it says nothing."""
    if index >= len(method.inputs):
        return ""
    if index == 0 and method.has_base:
        return "Deltas are taken from this model"
    name = method.inputs[index].name
    for found in _ARGUMENT.finditer(method.doc):
        if found["name"] == name:
            words = " ".join(found["text"].split()).partition(";")[0].rstrip(".")
            words = words.removeprefix("Values of ")
            is_told_by_label = words == f"model {name.upper()}"
            return "" if is_told_by_label else words[:1].upper() + words[1:]
    return ""


def _linked(source: str) -> str:
    parts = re.split(r"(https?://[^\s,;)]+)", source)
    return "".join(
        f'<a href="{markup.text(p)}" target="_blank" rel="noopener noreferrer">'
        f"{markup.text(p)}</a>"
        if p.startswith("http")
        else markup.text(p)
        for p in parts
    )
