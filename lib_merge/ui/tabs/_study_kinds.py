"""The kinds of controls that the AutoMBW page is built of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.ui import compat
from lib_merge.ui import study_choices as offers


@dataclass(frozen=True)
class Opening:
    """What the page shows when it is built.

    Attributes:
        titles: Checkpoints to choose from; the first two are chosen.
        payload_dir: Where payload files lie.
        studies: Names of all studies.
        study: The one to show, or None.
        groups: Groups of blocks of the first model.
        tournaments: Names of all tournaments.
        storage: Where the user's settings have new studies kept, or "".
    """

    titles: tuple[str, ...]
    payload_dir: Path
    studies: tuple[str, ...]
    study: str | None
    groups: tuple[str, ...] = offers.GROUPS
    tournaments: tuple[str, ...] = ()
    storage: str = ""


class StudyKinds:
    """Builds controls whose values the page reads together."""

    def __init__(self) -> None:
        self.inputs: set[Any] = set()

    def _fold(self, title: str, name: str) -> Any:
        return compat.make(gr.Accordion, title, open=False, elem_id=f"merge-mbw-{name}")

    def _control(self, kind: Any, *args: Any, **options: Any) -> Any:
        control = compat.make(kind, *args, interactive=True, **options)
        self.inputs.add(control)
        return control

    def _list(self, label: str, names: tuple[str, ...], name: str) -> Any:
        return self._control(
            gr.Dropdown,
            list(names),
            value=names[0],
            label=label,
            elem_id=f"merge-mbw-{name}",
            min_width=160,
        )

    def _tick(self, label: str, name: str, is_on: bool) -> Any:
        return self._control(
            gr.Checkbox, label=label, value=is_on, elem_id=f"merge-mbw-{name}"
        )

    def _text(
        self,
        label: str,
        name: str,
        placeholder: str,
        *,
        value: str = "",
        info: str | None = None,
        lines: int = 1,
        min_width: int = 160,
    ) -> Any:
        return self._control(
            gr.Textbox,
            value,
            label=label,
            placeholder=placeholder,
            info=info,
            lines=lines,
            max_lines=max(lines, 4),
            elem_id=f"merge-mbw-{name}",
            min_width=min_width,
        )

    def _number(
        self,
        label: str,
        value: float,
        name: str,
        *,
        minimum: int | None = None,
        info: str | None = None,
        precision: int | None = 0,
    ) -> Any:
        return self._control(
            gr.Number,
            value=value,
            label=label,
            info=info,
            precision=precision,
            minimum=minimum,
            elem_id=f"merge-mbw-{name}",
            min_width=100,
        )

    def _button(
        self, label: str, name: str, *, variant: str = "secondary", size: str = "lg"
    ) -> Any:
        return button(label, name, variant=variant, size=size)


def button(
    label: str, name: str, *, variant: str = "secondary", size: str = "sm"
) -> Any:
    """One of the page's buttons."""
    return compat.make(
        gr.Button,
        label,
        variant=variant,
        size=size,
        elem_id=f"merge-mbw-{name}",
        min_width=90,
    )
