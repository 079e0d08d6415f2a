"""sd-mecha's methods on few models, in MergeLab's words."""

from __future__ import annotations

from datetime import date

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import Pick, Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.mecha_calls import Call, Operation, Table
from lib_merge.formats.mecha_graph import component_of, scaled
from lib_merge.formats.mecha_values import (
    Delta,
    LoraFile,
    Mask,
    Part,
    Perpendicular,
    Value,
    Weight,
)

SLERP_NORMED = date(2024, 4, 24)
ADDS_ALL = date(2024, 6, 18)
TRAINS_AGAIN = date(2024, 7, 6)


def add_to(table: Table) -> None:
    """Register everything in this file."""
    table.add("weighted_sum", names="a b alpha")(_weighted_sum)
    table.add("slerp", names="a b alpha", dialects="bc", reason=_LENGTHS)(_slerp)
    table.add("add_difference", names="a b alpha")(_add_difference)
    table.add("subtract", names="a b")(_subtract)
    table.add("scale", names="a alpha", dialects="c")(_scale)
    table.add("perpendicular_component", names="a b")(_perpendicular)
    table.add("train_difference", names="a b c alpha", dialects="b")(_train)
    table.add("add_opposite", names="a b c alpha", dialects="b")(_plain("add_opposite"))
    table.add("clamped_add_opposite", names="a b c alpha", dialects="b")(
        _plain("add_strict_opposite")
    )
    for name in ("train_difference", "add_opposite", "add_strict_opposite"):
        table.add(f"{name}_mask", names="a b c alpha", dialects="c")(_mask(name))
    table.add("add_cosine_b", "similarity_sum", names="a b alpha")(_cosine_b)
    table.add("tensor_sum", "copy_region", names="a b width offset")(_tensor_sum)
    table.add("top_k_tensor_sum", names="a b width offset", dialects="c")(_top_k)
    table.add(
        "rotate",
        names="a b alignment alpha centralization stiefel_eps stiefel_max_iters",
        dialects="c",
        reason="its convolutions and centres were other ones before 2025",
    )(_rotate)
    table.add(
        "crossover",
        names="a b alpha tilt",
        dialects="c",
        reason="its filter was another one before 2025",
    )(_crossover)
    table.add("truncate_rank", names=_RANK, dialects="c")(_truncate_rank)
    table.add(
        "isotropic_overrided",
        names="d_ta z_cof apply_exp apply_high_dim",
        dialects="c",
    )(_isotropic)
    table.add("pick_component", names="a component")(_pick)
    table.add("omit_component", names="a component")(_omit)
    table.add("fallback", names="a default")(_fallback)
    table.add("cast", names="a device dtype")(_same)
    table.add("omit_non_finite", names="a")(_same)


_LENGTHS = "its slerp multiplied the lengths twice; MergeLab's has them right"
_RANK = "a rank use_approximate_basis approximate_basis_iters approximate_basis_seed"


def _pair(call: Call) -> tuple[int | None, int, int]:
    """(base, a, b): two models, or two differences of one base."""
    a, b = call.given.get("a"), call.given.get("b")
    if isinstance(a, Delta) and isinstance(b, Delta):
        base, (first, second) = call.builder.deltas([a, b], call.where)
        return base, first, second
    return None, call.model("a"), call.model("b")


def _result(base: int | None, node: int) -> Value:
    return Weight(node) if base is None else Delta(base, node)


def _weighted_sum(call: Call) -> Value:
    base, a, b = _pair(call)
    alpha = call.setting("alpha", 0.5)
    return _result(base, call.builder.merge("weighted_sum", (a, b), [("alpha", alpha)]))


def _slerp(call: Call) -> Value:
    if call.builder.dialect == "b":
        day = call.builder.ask_date("slerp was another formula before", call.where)
        if day < SLERP_NORMED:
            raise call.refuse(_LENGTHS)
    inputs = (call.model("a"), call.model("b"))
    alpha = call.setting("alpha", 0.5)
    return Weight(call.builder.merge("slerp", inputs, [("alpha", alpha)]))


def _default_alpha(call: Call) -> float:
    if call.builder.dialect != "b":
        return 0.5 if call.builder.dialect == "a" else 1.0
    if "alpha" in call.given:
        return 1.0
    day = call.builder.ask_date(
        "add_difference has no alpha, whose default changed", call.where
    )
    return 1.0 if day >= ADDS_ALL else 0.5


def _add_difference(call: Call) -> Value:
    builder, where = call.builder, call.where
    a, b, alpha = call.given.get("a"), call.given.get("b"), call.given.get("alpha")
    if isinstance(a, Weight) and isinstance(alpha, Mask) and isinstance(b, Delta):
        return _masked(call, a, b, alpha)
    step = call.setting("alpha", _default_alpha(call))
    if isinstance(a, Weight) and isinstance(b, LoraFile):
        return Weight(builder.graph.lora(b.path, a.node, step))
    if isinstance(a, Weight) and isinstance(b, Perpendicular):
        if (b.along.base, b.along.node) != (b.of.base, a.node):
            raise call.refuse("the perpendicular part is not of this model's own")
        inputs = (a.node, b.of.node, b.of.base)
        return Weight(builder.merge("add_perpendicular", inputs, [("alpha", step)]))
    if isinstance(a, Weight) and isinstance(b, Delta):
        if a.node == b.base:
            return Weight(builder.moved(b, step, where))
        whole = scaled(step, b.factor)
        inputs = (a.node, b.node, b.base)
        return Weight(builder.merge("add_difference", inputs, [("alpha", whole)]))
    if isinstance(a, Delta) and isinstance(b, Delta):
        base, (first, second) = builder.deltas([a, b], where)
        inputs = (first, second, base)
        return Delta(base, builder.merge("add_difference", inputs, [("alpha", step)]))
    raise call.refuse("a model or a difference is wanted, and a difference to add")


def _masked(call: Call, a: Weight, b: Delta, mask: Mask) -> Value:
    if (mask.a, mask.b, mask.c) != (a.node, b.node, b.base) or b.factor != 1.0:
        raise call.refuse("the mask is of other models than the ones that are added")
    inputs = (mask.a, mask.b, mask.c)
    return Weight(call.builder.merge(mask.method, inputs, [("alpha", mask.alpha)]))


def _subtract(call: Call) -> Value:
    return Delta(call.model("b"), call.model("a"))


def _scale(call: Call) -> Value:
    delta = call.given.get("a")
    if not isinstance(delta, Delta):
        raise call.refuse("only a difference can be scaled")
    return Delta(delta.base, delta.node, delta.factor * call.number("alpha", 1.0))


def _perpendicular(call: Call) -> Value:
    along, of = call.given.get("a"), call.given.get("b")
    is_whole = (
        isinstance(along, Delta)
        and isinstance(of, Delta)
        and along.base == of.base
        and along.factor == of.factor == 1.0
    )
    if is_whole and isinstance(along, Delta) and isinstance(of, Delta):
        return Perpendicular(along, of)
    raise call.refuse("only differences from one base have a part at right angles here")


def _three(call: Call) -> tuple[int, int, int]:
    return call.model("a"), call.model("b"), call.model("c")


def _plain(method: str) -> Operation:
    def run(call: Call) -> Value:
        alpha = call.setting("alpha", 1.0)
        return Weight(call.builder.merge(method, _three(call), [("alpha", alpha)]))

    return run


def _mask(method: str) -> Operation:
    def run(call: Call) -> Value:
        return Mask(method, *_three(call), call.setting("alpha", 1.0))

    return run


def _train(call: Call) -> Value:
    day = call.builder.ask_date(
        "train_difference was another formula before", call.where
    )
    alpha = call.setting("alpha", 1.0)
    method = "train_difference"
    if day < TRAINS_AGAIN:
        # For these months it was what later was called clamped_add_opposite, halved.
        method, alpha = "add_strict_opposite", scaled(alpha, 0.5)
    return Weight(call.builder.merge(method, _three(call), [("alpha", alpha)]))


def _cosine_b(call: Call) -> Value:
    is_c = call.builder.dialect == "c"
    params = [("alpha", call.setting("alpha", 1.0 if is_c else 0.5))]
    params.append(("stretch", Setting(0.0)))
    inputs = (call.model("a"), call.model("b"))
    return Weight(call.builder.merge("cosine_b", inputs, params))


def _region(call: Call, width: float) -> list[tuple[str, Setting]]:
    """Width and offset of a slice that may begin before 0 or run backwards."""
    size, start = call.number("width", width), call.number("offset", 0.0)
    if size < 0.0:
        start, size = start + size, -size
    if start < 0.0:
        start = 1.0 + start - int(start)
    return [("alpha", Setting(min(size, 1.0))), ("beta", Setting(start % 1.0))]


def _tensor_sum(call: Call) -> Value:
    base, a, b = _pair(call)
    return _result(base, call.builder.merge("tensor_sum", (a, b), _region(call, 0.5)))


def _top_k(call: Call) -> Value:
    inputs = (call.model("a"), call.model("b"))
    params = _region(call, 1.0)
    return Weight(call.builder.merge("top_k_tensor_sum", inputs, params))


def _rotate(call: Call) -> Value:
    inputs = (call.model("a"), call.model("b"))
    params = [
        ("alignment", Setting(call.number("alignment", 1.0))),
        ("alpha", call.setting("alpha", 0.0)),
        ("centralization", Setting(call.number("centralization", 1.0))),
    ]
    return Weight(call.builder.merge("rotate", inputs, params))


def _crossover(call: Call) -> Value:
    inputs = (call.model("a"), call.model("b"))
    params = [
        ("alpha", Setting(call.number("alpha", 0.5))),
        ("tilt", Setting(call.number("tilt", 0.0))),
    ]
    return Weight(call.builder.merge("crossover", inputs, params))


def _truncate_rank(call: Call) -> Value:
    delta = call.given.get("a")
    if call.flag("use_approximate_basis", True):
        raise call.refuse(
            "its approximate basis is drawn at random; only with "
            "use_approximate_basis=false it can be repeated"
        )
    base, (node,) = call.builder.deltas([delta], call.where)
    rank = Setting(float(int(call.number("rank", 8.0))))
    return Delta(
        base, call.builder.merge("truncate_rank", (base, node), [("rank", rank)])
    )


def _isotropic(call: Call) -> Value:
    if call.flag("apply_exp"):
        raise call.refuse("its geometric mean of singular values has no counterpart")
    base, (node,) = call.builder.deltas([call.given.get("d_ta")], call.where)
    params = [
        ("z", call.setting("z_cof", 0.0)),
        ("conv", Setting(float(call.flag("apply_high_dim")))),
    ]
    return Delta(base, call.builder.merge("iso_z", (base, node), params))


def _pick(call: Call) -> Value:
    component = component_of(call.given.get("component"), call.where)
    return Part(call.model("a"), component, is_omitted=False)


def _omit(call: Call) -> Value:
    component = component_of(call.given.get("component"), call.where)
    return Part(call.model("a"), component, is_omitted=True)


def _fallback(call: Call) -> Value:
    first, other = call.given.get("a"), call.given.get("default")
    if isinstance(first, Part) and isinstance(other, Weight):
        block = BlockId(first.component.name)
        inputs = (other.node, first.node)
        if first.is_omitted:
            inputs = (first.node, other.node)
        pick = Pick(1, (block,))
        return Weight(call.builder.graph.select(inputs, (pick,)))
    if isinstance(first, Weight):
        call.builder.note(
            "Where a model lacks tensors, the recipe takes them from another one "
            "(fallback); MergeLab refuses such models unless --missing-ok is given."
        )
        return first
    raise call.refuse("models, or a component of one, are wanted here")


def _same(call: Call) -> Value:
    call.builder.note(f"'{call.line.args[0]}' changes no value and is left out.")
    value = call.given.get("a")
    if value is None:
        raise RecipeError([f"{call.where}: a model is wanted here."])
    return value
