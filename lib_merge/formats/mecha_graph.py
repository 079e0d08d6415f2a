"""Turns the lines of a .mecha recipe into nodes, one after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from lib_merge.core.blocks import Component
from lib_merge.core.recipe import (
    DEFAULT_COMPONENTS,
    MergeNode,
    Rule,
    Setting,
)
from lib_merge.errors import RecipeError
from lib_merge.formats.graph import Graph, Params
from lib_merge.formats.mecha_dict import setting_of
from lib_merge.formats.mecha_text import Line, Ref, Text
from lib_merge.formats.mecha_values import (
    Delta,
    Literal,
    LoraFile,
    Value,
    Weight,
)
from lib_merge.formats.orders import WHOLE
from lib_merge.methods import methods

_DATED = re.compile(r"(?<!\d)(2[3-9])(\d\d)(\d\d)(?:\d\d)?-[0-9a-f]{7}(?![0-9a-f])")


def date_in(name: str) -> date | None:
    """The day in a name such as x72a-AstolfoMix-240421-feefbf4.mecha."""
    match = _DATED.search(name)
    try:
        return (
            date(2000 + int(match[1]), int(match[2]), int(match[3])) if match else None
        )
    except ValueError:
        return None


@dataclass
class Builder:
    """A recipe in the making.

    Attributes:
        text: What is read.
        where: Its file, for messages.
        as_of: When it was made, if that is known.
        graph: Where nodes go.
        values: What each line stands for.
        arch: What its models say of their architecture, or "".
        notes: How words were understood.
        unknown: What is not said.
    """

    text: Text
    where: str
    as_of: date | None
    graph: Graph = field(init=False)
    values: list[Value] = field(default_factory=list)
    arch: str = ""
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        is_c = self.text.dialect == "c"
        # Until 2025 the VAE was passed through; since then it is merged like the rest.
        self.graph = Graph(WHOLE if is_c else DEFAULT_COMPONENTS)

    @property
    def dialect(self) -> str:
        """a, b or c."""
        return self.text.dialect

    def note(self, sentence: str) -> None:
        """Keep a sentence once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def at(self, line: Line) -> str:
        """A line's place, for messages."""
        return f"{self.where}, line {line.number}"

    def value(self, word: object, line: Line) -> Value:
        """What a word stands for; references are followed.

        Raises:
            RecipeError: A reference to a line that does not come before.
        """
        if not isinstance(word, Ref):
            return word  # type: ignore[return-value]
        if word.index >= len(self.values):
            raise RecipeError(
                [
                    f"{self.at(line)}: &{word.index} refers to a line that does not "
                    f"come before it; there are {len(self.values)} before."
                ]
            )
        return self.values[word.index]

    def setting(self, value: Value, where: str) -> Setting:
        """A number, or numbers by block.

        Raises:
            RecipeError: It is neither.
        """
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return Setting(float(value))
        if isinstance(value, bool):
            return Setting(float(value))
        if isinstance(value, Literal):
            numbers = {k: v for k, v in value.values.items() if isinstance(v, float)}
            if len(numbers) != len(value.values) or not numbers:
                raise RecipeError([f"{where}: a weight by block is no number."])
            if set(numbers) == {"key"}:
                return Setting(numbers["key"])
            arch = value.config or self.arch
            if self.dialect == "c":
                self.note(
                    "Blocks that a dict does not name have no value in sd-mecha, which "
                    "leaves them out or has a fallback; here they are model A's."
                )
            return setting_of(numbers, self.dialect, arch, where)
        raise RecipeError([f"{where}: a number is wanted here, or a dict of numbers."])

    def model(self, value: Value, where: str) -> int:
        """The node of a model.

        Raises:
            RecipeError: It is a difference, a number ...
        """
        if isinstance(value, Weight):
            return value.node
        kind = "a difference" if isinstance(value, Delta) else "something else"
        raise RecipeError([f"{where}: a model is wanted here, but this is {kind}."])

    def deltas(self, values: Sequence[Value], where: str) -> tuple[int, list[int]]:
        """The one base of some differences, and the models they come from.

        Raises:
            RecipeError: No differences, or of several bases.
        """
        found = [value for value in values if isinstance(value, Delta)]
        if not found or len(found) != len(values):
            raise RecipeError([f"{where}: differences (subtract) are wanted here."])
        if len({delta.base for delta in found}) > 1:
            raise RecipeError(
                [
                    f"{where}: the differences have several bases; MergeLab's methods "
                    "take one base for all."
                ]
            )
        return found[0].base, [self.end(delta, where) for delta in found]

    def end(self, delta: Delta, where: str) -> int:
        """The node that a difference leads to, its factor worked in."""
        if delta.factor == 1.0:
            return delta.node
        return self.moved(delta, Setting(1.0), where)

    def moved(self, delta: Delta, alpha: Setting, where: str) -> int:
        """base + alpha * factor * (node - base)."""
        step = scaled(alpha, delta.factor)
        node = self.graph.nodes[delta.node]
        own = _own_factor(node) if isinstance(node, MergeNode) else None
        if (
            own is not None
            and isinstance(node, MergeNode)
            and _base_of(node) == delta.base
        ):
            name, before = own
            lam = scaled(step, before)
            if _fits(node.method, name, lam):
                rest = [(k, v) for k, v in node.params if k != name]
                params = [*rest, *([(name, lam)] if lam != Setting(1.0) else [])]
                return self.graph.merge(node.method, node.inputs, params)
        for method in ("amplify_difference", "weighted_sum"):
            if _fits(method, "alpha", step):
                if node == self.graph.nodes[delta.base]:
                    return delta.base
                return self.graph.merge(
                    method, (delta.base, delta.node), [("alpha", step)]
                )
        raise RecipeError(
            [f"{where}: the factor {step.value:g} of a difference is out of range."]
        )

    def merge(self, method: str, inputs: Sequence[int], params: Params = ()) -> int:
        """A merge's node, parameters at their defaults left out."""
        declared = methods().get(method)
        kept = []
        for name, setting in params:
            spec = declared.param(name)
            if spec is None or setting != Setting(spec.default):
                kept.append((name, setting))
        return self.graph.merge(method, inputs, kept)

    def ask_date(self, what: str, where: str) -> date:
        """When the recipe was made.

        Raises:
            RecipeError: That is not known; says what depends on it.
        """
        if self.as_of is not None:
            return self.as_of
        raise RecipeError(
            [
                f"{where}: {what}, and the file does not say when it was made. Give "
                "the day with --as-of YYYY-MM-DD."
            ]
        )

    def read_model(self, line: Line) -> Value:
        """`model` and `lora` lines.

        Raises:
            RecipeError: No path.
        """
        path = line.args[0] if line.args else line.options.get("path")
        if not isinstance(path, str) or not path.strip():
            raise RecipeError([f"{self.at(line)}: the model has no path."])
        arch = line.options.get("model_config", (*line.args, "", "")[1])
        kind = (*line.args, "", "", "")[2]
        arch = arch if isinstance(arch, str) else ""
        is_lora = line.command == "lora" or kind == "lora"
        if is_lora or re.search("kohya|lycoris|lora", arch):
            return LoraFile(path)
        self.arch = self.arch or arch
        return Weight(self.graph.model(path))


def scaled(setting: Setting, factor: float) -> Setting:
    """A setting with every value times a factor."""
    if factor == 1.0:
        return setting
    return Setting(
        setting.value * factor,
        tuple((block, value * factor) for block, value in setting.blocks),
        tuple(Rule(r.value * factor, r.blocks, r.pattern) for r in setting.rules),
    )


def _own_factor(node: MergeNode) -> tuple[str, float] | None:
    """A method's own factor of its delta, if it is one number as yet."""
    method = methods().get(node.method)
    if not method.has_base or method.param("lam") is None:
        return None
    lam = dict(node.params).get("lam", Setting(method.param("lam").default))  # type: ignore[union-attr]
    return None if lam.blocks or lam.rules else ("lam", lam.value)


def _base_of(node: MergeNode) -> int:
    return node.inputs[0]


def _fits(method: str, name: str, setting: Setting) -> bool:
    """Whether every value lies in a parameter's limits."""
    spec = methods().get(method).param(name)
    values = [setting.value, *(v for _, v in setting.blocks)]
    values += [rule.value for rule in setting.rules]
    assert spec is not None
    return all(spec.param.low <= v <= spec.param.high for v in values)


def component_of(name: object, where: str) -> Component:
    """sd-mecha's name of a component.

    Raises:
        RecipeError: None that can be taken from a model by itself.
    """
    known: Mapping[str, Component] = {
        "vae": Component.VAE,
        "clip_l": Component.CLIP_L,
        "clip_g": Component.CLIP_G,
        "clip_h": Component.CLIP_H,
        "diffuser": Component.UNET,
        "unet": Component.UNET,
    }
    if isinstance(name, str) and name in known:
        return known[name]
    raise RecipeError(
        [f"{where}: there is no component {name!r:.40}; known: {', '.join(known)}."]
    )
