"""`methods`: what can be merged how, read from the methods' own declarations."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from lib_merge.core.describe import describe_method, kind_of
from lib_merge.core.method import MergeMethod
from lib_merge.core.params import ParamSpec
from lib_merge.errors import InputError
from lib_merge.methods import methods

NAME = "methods"
HELP = "list the merge methods with their parameters"

BEGIN = "<!-- methods: begin (python -m lib_merge methods --markdown README.md) -->"
END = "<!-- methods: end -->"
"""Lines of the README that its table of methods stands between."""

ABSENT = (
    "Not here: MADGRAD, Fisher merging and RegMean, which need training data, "
    "activations or gradients that checkpoints do not hold."
)

_STDOUT = Path("-")
_WIDTH = 100
_INDENTS: dict[str, Any] = {
    "initial_indent": "    ",
    "subsequent_indent": "        ",
    "break_long_words": False,
    "break_on_hyphens": False,
}
_URL = re.compile(r"https?://[^\s,;)]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("id", nargs="?", help="show all of one method")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--markdown",
        nargs="?",
        type=Path,
        const=_STDOUT,
        metavar="FILE",
        help="print the README's table of methods, or bring the one in FILE up to date",
    )


def run(args: argparse.Namespace) -> int:
    """Print every method, or one."""
    if args.markdown is not None:
        _write_markdown(args.markdown)
    elif args.json:
        found = [methods().get(args.id)] if args.id else list(methods())
        print(json.dumps([describe_method(method) for method in found], indent=2))
    elif args.id:
        method = methods().get(args.id)
        _show(method)
        print(f"\n{textwrap.indent(method.doc, '    ')}")
    else:
        _show_all()
    return 0


def models_of(method: MergeMethod) -> str:
    """What a method's recipes take, in order: "BASE, MODELS..."."""
    names = ["MODELS..." if s.is_pool else s.name.upper() for s in method.inputs]
    return ", ".join("MODEL" if name == "DELTA" else name for name in names)


def markdown() -> str:
    """The README's table of methods, between its markers."""
    lines = [
        BEGIN,
        "",
        "| id | formula | models | paper or origin |",
        "| --- | --- | --- | --- |",
        *(_row(method) for method in methods()),
        "",
        END,
    ]
    return "\n".join(lines)


def _show_all() -> None:
    kinds: dict[str, list[MergeMethod]] = {
        "Few models": [],
        "Any number of models": [],
        "Over whole tensors": [],
    }
    for method in methods():
        kinds[kind_of(method)].append(method)
    for kind, found in kinds.items():
        print(f"{kind} ({len(found)})\n")
        for method in found:
            _show(method)
            print()
    print(textwrap.fill(ABSENT, _WIDTH))
    print("`methods ID` shows all of one: shapes, degenerate inputs, source.")


def _show(method: MergeMethod) -> None:
    lines = [method.formula, f"models: {models_of(method)}"]
    lines += [_param_line(spec) for spec in method.params]
    lines.append(f"source: {method.source}")
    print(f"{method.id}  ({method.label})")
    for line in lines:
        print(textwrap.fill(line, _WIDTH, **_INDENTS))


def _param_line(spec: ParamSpec) -> str:
    limits = f"{spec.param.low:g} to {spec.param.high:g}"
    if spec.param.choices:
        limits = ", ".join(spec.param.choices)
    elif spec.param.is_integer:
        limits = f"whole, {spec.param.low:.0f} to {spec.param.high:.0f}"
    facts = [limits]
    facts += ["per block"] * spec.param.per_block
    facts += ["per model"] * spec.param.per_model
    name = f"{spec.name} = {spec.text_of(spec.default)}"
    between = "; " if spec.param.choices else ", "
    return f"{name}  ({between.join(facts)})  {spec.param.help}"


def _row(method: MergeMethod) -> str:
    # Inside a table a bar ends the cell, in code as well, unless it is escaped.
    formula = method.formula.replace("|", "\\|")
    return f"| `{method.id}` | `{formula}` | {models_of(method)} | {_linked(method)} |"


def _linked(method: MergeMethod) -> str:
    """A method's source with its first address behind the words."""
    found = [url.rstrip(".") for url in _URL.findall(method.source)]
    words = _URL.sub("", method.source).replace("|", "\\|")
    words = re.sub(r"(,\s*)+([,;.)]|$)", r"\2", words.strip()).strip(" ,;")
    more = "".join(f", [{n}]({url})" for n, url in enumerate(found[1:], 2))
    return f"[{words}]({found[0]}){more}" if found else words


def _write_markdown(path: Path) -> None:
    if path == _STDOUT:
        print(markdown())
        return
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise InputError(f"{path} cannot be read ({fault.strerror}).") from fault
    start, end = text.find(BEGIN), text.find(END)
    if not 0 <= start < end:
        raise InputError(f"{path} has no table of methods between '{BEGIN}' and {END}.")
    path.write_text(text[:start] + markdown() + text[end + len(END) :], "utf-8")
    print(f"{path}: {len(methods())} methods")
