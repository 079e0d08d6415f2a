"""Writes a recipe for sd-mecha 1.1.8: .mecha of version 0.1.0, dialect (c).

`vote_sgn` and `apply_stock` are written as that program's code takes them, which is the
opposite of what its documentation says; see `mecha_pools`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from lib_merge.core.nodes import MergeNode, ModelNode, SelectNode, Setting
from lib_merge.core.recipe import DEFAULT_COMPONENTS, Recipe
from lib_merge.errors import RecipeError
from lib_merge.formats.mecha_text import VERSION
from lib_merge.formats.mecha_write_blocks import block_line
from lib_merge.formats.orders import WHOLE
from lib_merge.methods import methods
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Trim

CONVERSIONS = {
    "sd1-supermerger_blocks": "convert_sd1_blocks_to_ldm",
    "sdxl-supermerger_blocks": "convert_sdxl_blocks_to_sgm",
}
"""From numbers by block to numbers by tensor."""

_COMPONENTS = {
    "VAE": "vae",
    "CLIP_L": "clip_l",
    "CLIP_G": "clip_g",
    "CLIP_H": "clip_h",
    "UNET": "diffuser",
}


def write(recipe: Recipe) -> str:
    """The recipe's lines.

    Raises:
        RecipeError: Something that sd-mecha cannot say, or says in another sense.
    """
    return _Writer(recipe).text()


class _Writer:
    """Lines in the making."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._lines: list[str] = []
        self._places: dict[str, int] = {}
        self._nodes: list[str] = []

    def text(self) -> str:
        merges = [n for n in self._recipe.nodes if isinstance(n, MergeNode)]
        kinds = {frozenset(node.components) for node in merges}
        if kinds - {frozenset(WHOLE), frozenset(DEFAULT_COMPONENTS)} or len(kinds) > 1:
            raise RecipeError(
                [
                    "sd-mecha merges everything, or everything but the VAE; this "
                    "recipe blends other components."
                ]
            )
        for index, node in enumerate(self._recipe.nodes):
            self._nodes.append(self._node(index, node))
        if kinds == {frozenset(DEFAULT_COMPONENTS)}:
            first = self._nodes[self._recipe.first_model()]
            vae = self.line(f'merge "pick_component" {first} "vae"')
            self.line(f'merge "fallback" {vae} {self._nodes[-1]}')
        # Without a line end: sd-mecha fails on an empty line.
        return "\n".join([f"version {VERSION}", *self._lines])

    def line(self, text: str) -> str:
        """A line's reference; equal lines are one."""
        if text not in self._places:
            self._places[text] = len(self._lines)
            self._lines.append(text)
        return f"&{self._places[text]}"

    def _node(self, index: int, node: object) -> str:
        if isinstance(node, ModelNode):
            if "\n" in node.path:
                raise RecipeError([f"Node {index}: a path with a line end."])
            path = node.path.replace("\\", "\\\\").replace('"', '\\"')
            return self.line(f'model "{path}" model_config=null merge_space="weight"')
        if isinstance(node, SelectNode):
            return self._select(index, node)
        if isinstance(node, MergeNode) and node.method in _WRITERS:
            return _WRITERS[node.method](_Merge(self, index, node, self._nodes))
        name = node.method if isinstance(node, MergeNode) else "a LoRA"
        raise RecipeError(
            [f"Node {index}: sd-mecha 1.1.8 has nothing of the meaning of {name}."]
        )

    def _select(self, index: int, node: SelectNode) -> str:
        result = self._nodes[node.inputs[0]]
        for pick in node.picks:
            if pick.pattern or any(block not in _COMPONENTS for block in pick.blocks):
                raise RecipeError(
                    [f"Node {index} (select): sd-mecha picks whole components only."]
                )
            for block in pick.blocks:
                source = self._nodes[node.inputs[pick.input]]
                part = self.line(
                    f'merge "pick_component" {source} "{_COMPONENTS[block]}"'
                )
                result = self.line(f'merge "fallback" {part} {result}')
        return result


class _Merge:
    """One merge with its inputs and parameters in words."""

    def __init__(
        self, writer: _Writer, index: int, node: MergeNode, nodes: Sequence[str]
    ) -> None:
        self.writer = writer
        self.node = node
        self.inputs = [nodes[i] for i in node.inputs]
        self.where = f"Node {index} ({node.method})"
        self._given = dict(node.params)

    def setting(self, name: str) -> Setting:
        spec = methods().get(self.node.method).param(name)
        assert spec is not None
        return self._given.get(name, Setting(spec.default))

    def number(self, name: str) -> float:
        setting = self.setting(name)
        if setting.blocks or setting.rules:
            raise self.refuse(f"{name} differs by block, which sd-mecha does not take")
        return setting.value

    def word(self, name: str) -> str:
        """A parameter as a number, or as a reference to numbers by block."""
        setting = self.setting(name)
        if not setting.blocks and not setting.rules:
            return repr(setting.value)
        line, config = block_line(setting, self.node.components, self.where)
        inner = self.writer.line(line)
        blocks = self.writer.line(
            f"literal {inner} model_config={json.dumps(config)} merge_space=null"
        )
        return self.call(CONVERSIONS[config], blocks)

    def call(self, method: str, *words: str) -> str:
        return self.writer.line(" ".join(["merge", json.dumps(method), *words]))

    def delta(self, model: str, base: str) -> str:
        return self.call("subtract", model, base)

    def deltas(self) -> list[str]:
        return [self.delta(one, self.inputs[0]) for one in self.inputs[1:]]

    def added(self, delta: str, alpha: str) -> str:
        return self.call("add_difference", self.inputs[0], delta, f"alpha={alpha}")

    def refuse(self, reason: str) -> RecipeError:
        return RecipeError([f"{self.where}: {reason}."])

    def plain_weights(self) -> None:
        if any(name.startswith("weight") for name, _ in self.node.params):
            raise self.refuse("weights by model have no counterpart in sd-mecha")


def _with(method: str, *names: str, by_block: bool = False) -> Callable[[_Merge], str]:
    """A method whose words are the same, "ours=theirs" where one has another name."""

    def run(merge: _Merge) -> str:
        words = []
        for name in names:
            ours, _, theirs = name.partition("=")
            value = merge.word(ours) if by_block else repr(merge.number(ours))
            words.append(f"{theirs or ours}={value}")
        return merge.call(method, *merge.inputs, *words)

    return run


def _add_difference(merge: _Merge) -> str:
    delta = merge.delta(merge.inputs[1], merge.inputs[2])
    return merge.added(delta, merge.word("alpha"))


def _amplify(merge: _Merge) -> str:
    return merge.added(merge.deltas()[0], merge.word("alpha"))


def _masked(method: str) -> Callable[[_Merge], str]:
    def run(merge: _Merge) -> str:
        mask = merge.call(
            f"{method}_mask", *merge.inputs, f"alpha={merge.word('alpha')}"
        )
        return merge.added(merge.delta(*merge.inputs[1:]), mask)

    return run


def _perpendicular(merge: _Merge) -> str:
    a, b, c = merge.inputs
    part = merge.call("perpendicular_component", merge.delta(a, c), merge.delta(b, c))
    return merge.added(part, merge.word("alpha"))


def _cosine_b(merge: _Merge) -> str:
    if merge.number("stretch"):
        raise merge.refuse("sd-mecha does not stretch cosines; set stretch=off")
    return _with("add_cosine_b", "alpha", by_block=True)(merge)


def _tensor_sum(merge: _Merge) -> str:
    if merge.number("axis"):
        raise merge.refuse("sd-mecha takes slices of rows only; set axis=rows")
    return _with("tensor_sum", "alpha=width", "beta=offset")(merge)


def _stock(merge: _Merge) -> str:
    if merge.number("clamp"):
        raise merge.refuse("sd-mecha does not clamp; set clamp=off")
    return merge.added(merge.call("model_stock", *merge.deltas()), "1.0")


def _soup(merge: _Merge) -> str:
    words = ["k=1.0", "vote_sgn=false"]
    return merge.added(
        merge.call("ties_sum", *merge.deltas(), *words), merge.word("lam")
    )


def _ties(merge: _Merge) -> str:
    merge.plain_weights()
    words = [f"k={merge.number('density')!r}", "vote_sgn=true"]
    return merge.added(
        merge.call("ties_sum", *merge.deltas(), *words), merge.word("lam")
    )


def _dropped(*, is_median: bool, is_ranked: bool) -> Callable[[_Merge], str]:
    """TSD, TGMD and DGMLA: votes by count, nothing trimmed or rescaled."""

    def run(merge: _Merge) -> str:
        words = [
            f"probability={merge.number('drop_rate')!r}",
            f"della_eps={merge.number('epsilon') if is_ranked else 0.0!r}",
            "rescale=false",
            f"seed={int(merge.number('seed'))}",
            *("k=1.0", "vote_sgn=false", "apply_stock=true"),
            f"apply_median={'true' if is_median else 'false'}",
        ]
        delta = merge.call("ties_sum_with_dropout", *merge.deltas(), *words)
        return merge.added(delta, merge.word("lam"))

    return run


def _stack(merge: _Merge) -> str:
    merge.plain_weights()
    trim, drop = merge.number("trim"), merge.number("drop")
    elect, combine = merge.number("elect"), merge.number("combine")
    is_median = combine == Combine.MEDIAN
    rescale = merge.number("rescale")
    is_known = (
        trim in (Trim.NONE, Trim.TOP)
        and elect != Elect.NONE
        and combine in (Combine.MEDIAN, Combine.DISJOINT_MEAN)
        and (
            rescale == 0.0 or (drop == Drop.RANDOM and not is_median and rescale == 1.0)
        )
    )
    if not is_known:
        raise merge.refuse("this combination of parts has no counterpart in sd-mecha")
    words = [
        f"k={1.0 if trim == Trim.NONE else merge.number('density')!r}",
        f"vote_sgn={'true' if elect == Elect.MAGNITUDE else 'false'}",
        "apply_stock=true",
        f"apply_median={'true' if is_median else 'false'}",
    ]
    if is_median:
        words += [
            f"eps={merge.number('eps')!r}",
            f"maxiter={int(merge.number('n_iterations'))}",
            f"ftol={merge.number('ftol')!r}",
        ]
    method = "ties_sum_extended"
    if drop != Drop.NONE:
        method = "ties_sum_with_dropout"
        is_ranked = drop == Drop.MAGNITUDE
        words += [
            f"probability={merge.number('drop_rate')!r}",
            f"della_eps={merge.number('epsilon') if is_ranked else 0.0!r}",
            f"rescale={'true' if rescale else 'false'}",
            f"seed={int(merge.number('seed'))}",
        ]
    return merge.added(merge.call(method, *merge.deltas(), *words), merge.word("lam"))


_WRITERS: dict[str, Callable[[_Merge], str]] = {
    "weighted_sum": _with("weighted_sum", "alpha", by_block=True),
    "uniform_soup": _with("n_average"),
    "slerp": _with("slerp", "alpha", by_block=True),
    "geometric_median": _with("geometric_median"),
    "clamp_to_range": _with("clamp"),
    "rotate": _with("rotate", "alignment", "alpha", "centralization"),
    "crossover": _with("crossover", "alpha", "tilt"),
    "top_k_tensor_sum": _with("top_k_tensor_sum", "alpha=width", "beta=offset"),
    "tensor_sum": _tensor_sum,
    "add_difference": _add_difference,
    "amplify_difference": _amplify,
    "add_perpendicular": _perpendicular,
    "cosine_b": _cosine_b,
    "model_stock_consecutive": _stock,
    "ties_soup": _soup,
    "ties": _ties,
    "stack": _stack,
    "tsd": _dropped(is_median=False, is_ranked=False),
    "tgmd": _dropped(is_median=True, is_ranked=False),
    "dgmla": _dropped(is_median=True, is_ranked=True),
    **{
        name: _masked(name)
        for name in ("train_difference", "add_opposite", "add_strict_opposite")
    },
}
