"""The hosts' X/Y/Z plot script, as far as extensions and merges can tell."""

from __future__ import annotations

import copy
import itertools
import types
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

ScriptClassData = namedtuple("ScriptClassData", "script_class path basedir module")


class AxisOption:
    """scripts/xyz_grid.py of 1.10.1."""

    def __init__(
        self,
        label: str,
        type: Any,
        apply: Callable[..., None],
        format_value: Any = None,
        confirm: Callable[..., None] | None = None,
        cost: float = 0.0,
        choices: Callable[[], list[str]] | None = None,
        prepare: Callable[[str], list[str]] | None = None,
    ) -> None:
        self.label, self.type, self.apply = label, type, apply
        self.confirm, self.cost = confirm, cost
        self.choices, self.prepare = choices, prepare


class OldAxisOption(AxisOption):
    """That of a host from before choices could be prepared."""

    def __init__(self, label: str, type: Any, apply: Any, confirm: Any = None) -> None:
        super().__init__(label, type, apply, confirm=confirm)


def script_data(kind: type = AxisOption) -> list[Any]:
    """scripts_data with the plot and some other script."""
    module = types.ModuleType("xyz_grid.py")
    module.AxisOption = kind  # type: ignore[attr-defined]
    module.axis_options = [AxisOption("Nothing", str, lambda p, x, xs: None)]  # type: ignore[attr-defined]
    other = types.ModuleType("other.py")
    return [
        ScriptClassData(object, "other.py", "", other),
        ScriptClassData(object, "xyz_grid.py", "", module),
        ScriptClassData(object, "xyz_grid.py", "", module),
    ]


def options_of(data: list[Any]) -> list[Any]:
    """The plot's axes."""
    found: list[Any] = data[-1].module.axis_options
    return found


def run_grid(
    job: Any,
    axes: Sequence[tuple[Any, str]],
    picture: Callable[[Any], Any],
) -> list[Any]:
    """Script.run: confirm every axis, then render a changed copy for every cell.

    Args:
        job: The job of the user.
        axes: Axis options with the text that was typed.
        picture: What makes a cell's picture.
    """
    values = [_values(job, option, text) for option, text in axes]
    found = []
    for cell in itertools.product(*values):
        changed = copy.copy(job)
        for (option, _), xs, value in zip(axes, values, cell, strict=True):
            option.apply(changed, value, xs)
        found.append(picture(changed))
    return found


def _values(job: Any, option: Any, text: str) -> list[Any]:
    split = option.prepare or (lambda t: [v.strip() for v in t.split(",")])
    values = [option.type(value) for value in split(text)]
    if option.confirm:
        option.confirm(job, values)
    return values
