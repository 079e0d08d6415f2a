"""sd-mecha's merge methods: their arguments, and how a call's words fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from lib_merge.core.recipe import Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.mecha_graph import Builder
from lib_merge.formats.mecha_text import Line
from lib_merge.formats.mecha_values import Value
from lib_merge.formats.numbers import flag, number


@dataclass(frozen=True)
class Call:
    """One call with its arguments in place.

    Attributes:
        builder: The recipe in the making.
        line: The call's line.
        pool: Arguments that the method takes any number of.
        given: The others, by name.
    """

    builder: Builder
    line: Line
    pool: tuple[Value, ...]
    given: Mapping[str, Value]

    @property
    def where(self) -> str:
        """The call's place, for messages."""
        return f"{self.builder.at(self.line)} ({self.line.args[0]})"

    def model(self, name: str) -> int:
        """The node of an argument that is a model."""
        return self.builder.model(self.given.get(name), f"{self.where}, {name}")

    def setting(self, name: str, default: float) -> Setting:
        """An argument that may differ by block."""
        if name not in self.given or self.given[name] is None:
            return Setting(default)
        return self.builder.setting(self.given[name], f"{self.where}, {name}")

    def number(self, name: str, default: float) -> float:
        """An argument that is one number."""
        setting = self.setting(name, default)
        if setting.blocks or setting.rules:
            raise RecipeError([f"{self.where}: {name} must be one number."])
        return setting.value

    def flag(self, name: str, default: bool = False) -> bool:
        """An argument that is a switch; a number above 0 is on."""
        value = self.given.get(name, default)
        if not isinstance(value, (bool, int, float)):
            value = number(self.number(name, float(default)), self.where)
        return flag(value)

    def refuse(self, reason: str) -> RecipeError:
        """The error for a call that MergeLab cannot repeat."""
        return RecipeError([f"{self.where}: {reason}."])


Operation: TypeAlias = Callable[[Call], Value]


@dataclass(frozen=True)
class Declared:
    """A method of sd-mecha.

    Attributes:
        run: What it becomes.
        names: Its arguments in order.
        is_pool: Whether it takes any number of models first.
        dialects: Where its meaning is the one that `run` knows.
        reason: Why other dialects' is not, where it exists there.
    """

    run: Operation
    names: tuple[str, ...] = ()
    is_pool: bool = False
    dialects: str = "abc"
    reason: str = "it meant something else in this dialect"


@dataclass
class Table:
    """Methods by name."""

    methods: dict[str, Declared] = field(default_factory=dict)

    def add(
        self,
        *ids: str,
        names: str = "",
        is_pool: bool = False,
        dialects: str = "abc",
        reason: str = "it meant something else in this dialect",
    ) -> Callable[[Operation], Operation]:
        """Register a function under a method's names."""

        def register(run: Operation) -> Operation:
            declared = Declared(run, tuple(names.split()), is_pool, dialects, reason)
            self.methods.update(dict.fromkeys(ids, declared))
            return run

        return register

    def call(self, builder: Builder, line: Line) -> Value:
        """Run one `call` or `merge` line.

        Raises:
            RecipeError: An unknown method, wrong arguments, or nothing that MergeLab
                can repeat.
        """
        at = builder.at(line)
        name = line.args[0] if line.args else None
        if not isinstance(name, str):
            raise RecipeError([f"{at}: the merge names no method."])
        if name.startswith("convert_"):
            # Between names of the same tensors, or from blocks to tensors.
            return builder.value((*line.args, None)[1], line)
        declared = self.methods.get(name)
        if declared is None:
            raise RecipeError(
                [f"{at}: MergeLab has no method of the meaning of '{name[:60]}'."]
            )
        if builder.dialect not in declared.dialects:
            raise RecipeError(
                [f"{at}: '{name}' cannot be repeated: {declared.reason}."]
            )
        return declared.run(self._bound(declared, builder, line))

    def _bound(self, declared: Declared, builder: Builder, line: Line) -> Call:
        args = [builder.value(word, line) for word in line.args[1:]]
        given = {key: builder.value(word, line) for key, word in line.options.items()}
        unknown = [key for key in given if key not in declared.names]
        pool: tuple[Value, ...] = ()
        if declared.is_pool:
            pool, args = tuple(args), []
        if unknown or len(args) > len(declared.names):
            what = f"'{unknown[0][:40]}'" if unknown else "so many values"
            raise RecipeError(
                [
                    f"{builder.at(line)}: {line.args[0]} takes no {what}; it takes "
                    f"{', '.join(declared.names) or 'models only'}."
                ]
            )
        given.update(zip(declared.names, args, strict=False))
        return Call(builder, line, pool, given)
