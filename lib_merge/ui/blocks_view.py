"""The block editor: the architecture drawn in its U, one slider a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from lib_merge.core.blocks import Architecture, Block, BlockId, Component
from lib_merge.core.params import ParamSpec
from lib_merge.ui.markup import text

if TYPE_CHECKING:
    from lib_merge.analysis.anatomy import Part


@dataclass(frozen=True)
class EditorView:
    """What the editor shows.

    Attributes:
        name: The setting that its sliders set: a parameter, or weight@2.
        first: The parameter that pairs without a name are of; "" when there is none.
        main: What blocks without a value of their own follow.
        values: The blocks that have one.
        parts: What the first model's blocks are made of, by id.
    """

    name: str
    first: str
    main: float
    values: Mapping[BlockId, float]
    parts: Mapping[BlockId, Part] = field(default_factory=dict)


def editor(
    arch: Architecture | None, view: EditorView | None, spec: ParamSpec | None
) -> str:
    """The editor's HTML; javascript/merge_blocks.js brings it to life.

    Args:
        arch: Whose blocks to draw; None before the first model is chosen.
        view: What to show; None as long as `arch` is None.
        spec: The parameter that the sliders set; None when the method has none.
    """
    if spec is None:
        return _hint("This method has no parameter that may differ per block.")
    if arch is None or view is None:
        return _hint("Choose the first model; its architecture decides the blocks.")
    rows = "".join(_row(left, right, view, spec) for left, right in u_rows(arch))
    return (
        f'<div class="merge-editor" data-param="{text(view.name)}" '
        f'data-first="{text(view.first)}" data-main="{view.main:g}" role="group" '
        f'aria-label="{text(view.name)} for each block of {text(arch.label)}">'
        f"{_toolbar(view, spec)}"
        f'<div class="merge-u">{rows}</div></div>'
    )


def u_rows(arch: Architecture) -> list[tuple[Block | None, Block | None]]:
    """Blocks in the U's reading order, each row a (going down, coming up) pair.

    Text encoders and embeddings head the left column, the output layer the right one;
    IN00 stands beside the last OUT block, whose skip connection it feeds.
    """
    blocks = arch.weighted_blocks()
    down = [b for b in blocks if b.component is Component.UNET and _is(b, "IN")]
    up = [b for b in blocks if b.component is Component.UNET and _is(b, "OUT")]
    middle = [b for b in blocks if b.id.startswith("M") and b.id[1:].isdigit()]
    placed = {b.id for b in (*down, *up, *middle)}
    loose = [b for b in blocks if b.id not in placed]
    ends = [b for b in loose if b.id == "OUT"]
    heads = [b for b in loose if b.id != "OUT"]
    rows: list[tuple[Block | None, Block | None]] = [
        *_pairs(heads, ends),
        *zip_longest(down, reversed(up)),
        *((block, None) for block in middle),
    ]
    return rows


def _pairs(
    heads: Sequence[Block], ends: Sequence[Block]
) -> list[tuple[Block | None, Block | None]]:
    """Two columns of what stands outside the U, the output layer at the right."""
    n_rows = (len(heads) + len(ends) + 1) // 2
    left = list(heads[:n_rows])
    right = [*heads[n_rows:], *ends]
    return list(zip_longest(left, right))


def _is(block: Block, side: str) -> bool:
    return block.id.startswith(side) and block.id[len(side) :].isdigit()


def _row(
    left: Block | None,
    right: Block | None,
    view: EditorView,
    spec: ParamSpec,
) -> str:
    is_middle = left is not None and left.id.startswith("M") and right is None
    kind = "merge-u-row merge-u-middle" if is_middle else "merge-u-row"
    cells = (left,) if is_middle else (left, right)
    inner = "".join(_cell(block, view, spec) for block in cells)
    return f'<div class="{kind}">{inner}</div>'


def _cell(block: Block | None, view: EditorView, spec: ParamSpec) -> str:
    if block is None:
        return '<div class="merge-cell"></div>'
    is_own = block.id in view.values
    value = view.values.get(block.id, view.main)
    limits = f'min="{spec.param.low:g}" max="{spec.param.high:g}"'
    name = f"{view.name} of {block.id}"
    own = " merge-own" if is_own else ""
    kind = ' data-text="1"' if block.component.is_text_encoder else ""
    title, colour = _looks(block, view)
    return (
        f'<div class="merge-cell{own}" data-block="{text(block.id)}"{kind} '
        f'data-component="{block.component.value}" '
        f'title="{text(title)}"{colour}>'
        f'<span class="merge-cell-id">{text(block.id)}</span>'
        f'<input type="range" {limits} step="{spec.param.step:g}" value="{value:g}" '
        f'aria-label="{text(name)}">'
        f'<input type="number" {limits} step="any" value="{value:g}" '
        f'aria-label="{text(name)}, as a number"></div>'
    )


def _looks(block: Block, view: EditorView) -> tuple[str, str]:
    """What is told under the pointer, and the colour that diagrams give the block."""
    from lib_merge.analysis.diagram import COLOURS

    part = view.parts.get(block.id)
    if part is None:
        return f"{block.id}: {block.title}", ""
    return part.title, f' style="border-left-color:{COLOURS[part.kind]}"'


def _toolbar(view: EditorView, spec: ParamSpec) -> str:
    limits = f'min="{spec.param.low:g}" max="{spec.param.high:g}"'
    actions = (
        ("mirror", "Mirror IN to OUT", "Give each OUT block its IN partner's value"),
        ("reset", "Reset", "Let all blocks follow the main value again"),
        ("undo", "Undo", "Take the last change of the block weights back"),
        ("redo", "Redo", "Do again what Undo took back"),
    )
    buttons = "".join(_button(*action) for action in actions)
    return (
        '<div class="merge-tools">'
        f'<input type="number" class="merge-all" {limits} step="any" '
        f'value="{view.main:g}" aria-label="Value for all blocks">'
        f"{_button('all', 'Set all', 'Give every block this value')}{buttons}</div>"
    )


def _button(action: str, label: str, help_text: str) -> str:
    return (
        f'<button type="button" class="merge-tool" data-action="{action}" '
        f'title="{text(help_text)}">{text(label)}</button>'
    )


def _hint(message: str) -> str:
    return f'<div class="merge-note">{text(message)}</div>'
