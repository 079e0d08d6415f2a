"""Controls made from declarations: a parameter's slider, a method's explanation."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.methods import methods
from lib_merge.ui import compat, markup

_ARGUMENT = re.compile(r"^    (?P<name>\w+): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)


def n_param_slots() -> int:
    """How many sliders the method with the most parameters needs."""
    return max((len(method.params) for method in methods()), default=0)


def param_slider(index: int, spec: ParamSpec | None) -> Any:
    """The slider of a method's parameter by its place."""
    plain = {"minimum": 0.0, "maximum": 1.0, "value": 0.0, "label": f"{index + 1}"}
    return compat.make(
        gr.Slider,
        elem_id=f"merge-param-{index}",
        elem_classes=["merge-param"],
        interactive=True,
        **{**plain, **dressed_slider(spec)},
    )


def dressed_slider(spec: ParamSpec | None) -> dict[str, Any]:
    """Options that turn a slider into this parameter's, or hide it."""
    if spec is None:
        return {"visible": False}
    return {
        "visible": True,
        "minimum": spec.param.low,
        "maximum": spec.param.high,
        "step": spec.param.step,
        "value": spec.default,
        "label": spec.name,
        "info": spec.param.help or None,
    }


def spec_at(method: MergeMethod, index: int) -> ParamSpec | None:
    """A method's parameter by its place, or None."""
    return method.params[index] if index < len(method.params) else None


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
    return (
        f'<div class="merge-method"><span>{markup.text(line)}</span> '
        f"<code>{markup.text(method.formula)}</code>"
        f'<div class="merge-source">{_linked(method.source)}</div></div>'
    )


def input_help(method: MergeMethod, index: int) -> str:
    """What one input is for, out of the method's docstring; "" when it says nothing."""
    if index >= len(method.inputs):
        return ""
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
