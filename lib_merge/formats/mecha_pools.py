"""sd-mecha's methods on any number of models, in MergeLab's words.

What `vote_sgn` and `apply_stock` mean changed. Until 2025 vote_sgn > 0 is one model one
vote, and votes go by magnitude otherwise, but for the first weeks, which knew only
votes by count. Since the rewrite of 2025 (1.0.x, 1.1.8) it is the other way round, and
so is apply_stock: what a recipe computed is what its code did, not what it was called.
"""

from __future__ import annotations

import math
from datetime import date

from lib_merge.core.recipe import Setting
from lib_merge.formats.mecha_calls import Call, Table
from lib_merge.formats.mecha_values import Delta, Value, Weight
from lib_merge.methods._ops.consensus import Elect
from lib_merge.methods._ops.stack import Combine, Drop, Trim

VOTES_BY_MAGNITUDE = date(2024, 4, 24)
"""Before, ties_sum counted signs, by an accident that turned out well."""

_MEDIAN = "eps maxiter ftol"
_TIES = f"k vote_sgn apply_stock cos_eps apply_median {_MEDIAN}"
_DROP = f"probability della_eps rescale no_rescale seed {_TIES}"

Params = list[tuple[str, Setting]]

_USUAL_MEDIAN: Params = [
    ("eps", Setting(1e-6)),
    ("n_iterations", Setting(100.0)),
    ("ftol", Setting(1e-20)),
]


def add_to(table: Table) -> None:
    """Register everything in this file."""
    table.add("n_average", is_pool=True)(_average)
    table.add("geometric_median", names=_MEDIAN, is_pool=True)(_median)
    table.add("model_stock", "model_stock_for_tensor", names="cos_eps", is_pool=True)(
        _stock
    )
    table.add("clamp", "clip", names="stiffness", is_pool=True)(_clamp)
    table.add("ties_sum", names="k vote_sgn alpha", is_pool=True)(_ties)
    table.add("ties_sum_extended", names=_TIES, is_pool=True)(_ties)
    table.add("ties_sum_with_dropout", names=_DROP, is_pool=True)(_dropped_ties)
    table.add(
        "dropout",
        names="probability rescale overlap overlap_emphasis seed",
        is_pool=True,
        dialects="c",
        reason="its overlaps were drawn in another way before 2025",
    )(_dropout)


def _pool(call: Call) -> tuple[int | None, list[int]]:
    """Models, or the base and the models of differences."""
    values = list(call.pool)
    if not values:
        raise call.refuse("no models are given")
    if all(isinstance(value, Delta) for value in values):
        base, nodes = call.builder.deltas(values, call.where)
        return base, nodes
    return None, [call.builder.model(value, call.where) for value in values]


def _deltas(call: Call) -> tuple[int, list[int]]:
    return call.builder.deltas(list(call.pool), call.where)


def _average(call: Call) -> Value:
    base, nodes = _pool(call)
    node = call.builder.merge("uniform_soup", nodes)
    return Weight(node) if base is None else Delta(base, node)


def _median_params(call: Call) -> Params:
    return [
        ("eps", Setting(call.number("eps", 1e-6))),
        ("n_iterations", Setting(float(max(0, int(call.number("maxiter", 100.0)))))),
        ("ftol", Setting(call.number("ftol", 1e-20))),
    ]


def _median(call: Call) -> Value:
    base, nodes = _pool(call)
    params = _median_params(call)
    if params == _USUAL_MEDIAN:
        node = call.builder.merge("geometric_median", nodes)
    else:
        # The median moves with its points, so that any of them may be the base.
        params.append(("combine", Setting(float(Combine.MEDIAN))))
        first = nodes[0] if base is None else base
        node = call.builder.merge("stack", (first, *nodes), params)
    return Weight(node) if base is None else Delta(base, node)


def _stock(call: Call) -> Value:
    if call.number("cos_eps", 1e-6) != 1e-6:
        raise call.refuse("cos_eps is not 1e-6, which MergeLab's method has")
    base, nodes = _deltas(call)
    return Delta(base, call.builder.merge("model_stock_consecutive", (base, *nodes)))


def _clamp(call: Call) -> Value:
    if call.number("stiffness", 0.0) != 0.0:
        raise call.refuse("a stiffness has no counterpart in clamp_to_range")
    base, nodes = _pool(call)
    node = call.builder.merge("clamp_to_range", nodes)
    return Weight(node) if base is None else Delta(base, node)


def _elect(call: Call) -> Elect:
    """Who elects signs: by dialect, and by date where the dialect leaves it open."""
    dialect = call.builder.dialect
    if dialect == "a":
        return Elect.COUNT
    if dialect == "c":
        is_magnitude = call.flag("vote_sgn")
        call.builder.note(
            "vote_sgn: in sd-mecha of 2025 and later, true elects signs by magnitude "
            "and false by count, whatever its documentation says; so this recipe "
            f"elects by {'magnitude' if is_magnitude else 'count'}."
        )
        return Elect.MAGNITUDE if is_magnitude else Elect.COUNT
    if "vote_sgn" in call.given:
        return Elect.COUNT if call.flag("vote_sgn") else Elect.MAGNITUDE
    if call.line.args[0] != "ties_sum":
        return Elect.MAGNITUDE
    if "alpha" in call.given:
        # Only the first ties_sum had an alpha, and that one counted.
        return Elect.COUNT
    day = call.builder.ask_date(
        "ties_sum has no vote_sgn: signs are elected by count before 2024-04-24 and by "
        "magnitude since",
        call.where,
    )
    elect = Elect.COUNT if day < VOTES_BY_MAGNITUDE else Elect.MAGNITUDE
    call.builder.note(
        f"ties_sum without vote_sgn, made on {day.isoformat()}: signs are elected by "
        f"{elect.name.lower()}, as its code did then."
    )
    return elect


def _check_stock(call: Call, *, is_median: bool) -> None:
    if is_median or call.line.args[0] == "ties_sum":
        return
    is_on = call.flag("apply_stock") is not (call.builder.dialect == "c")
    if is_on:
        hint = (
            "apply_stock=false, which since 2025 means that it IS applied (true is off)"
            if call.builder.dialect == "c"
            else "apply_stock"
        )
        raise call.refuse(
            f"Model Stock by rows is applied to the elected differences ({hint}); "
            "MergeLab has no method for both at once"
        )


def _stack(call: Call) -> Params:
    """Trim, election and combination, as parameters of `stack`."""
    density = call.setting("k", 1.0 if _keeps_all(call) else 0.2)
    is_median = call.flag("apply_median")
    _check_stock(call, is_median=is_median)
    params: Params = []
    if density != Setting(1.0):
        params += [("trim", Setting(float(Trim.TOP))), ("density", density)]
    params.append(("elect", Setting(float(_elect(call)))))
    combine = Combine.MEDIAN if is_median else Combine.DISJOINT_MEAN
    params.append(("combine", Setting(float(combine))))
    if is_median:
        params += _median_params(call)
    return params


def _keeps_all(call: Call) -> bool:
    """Whether k is 1 where it is not given."""
    return call.builder.dialect == "c" and call.line.args[0] == "ties_sum"


def _ties(call: Call) -> Value:
    base, nodes = _deltas(call)
    params = _stack(call)
    node = call.builder.merge(*_named(params, (base, *nodes)))
    return Delta(base, node, call.number("alpha", 1.0))


def _named(
    params: Params, inputs: tuple[int, ...]
) -> tuple[str, tuple[int, ...], Params]:
    """The stack's row that has a name of its own, where there is one."""
    given = dict(params)
    by_count = given["elect"] == Setting(float(Elect.COUNT))
    is_mean = given["combine"] == Setting(float(Combine.DISJOINT_MEAN))
    drop = given.get("drop", Setting(0.0)).value
    if drop:
        is_row = by_count and "trim" not in given and not _rest(given, is_mean=is_mean)
        kept = [(k, v) for k, v in params if k in ("drop_rate", "seed")]
        if is_row and drop == Drop.RANDOM:
            return ("tsd" if is_mean else "tgmd"), inputs, kept
        if is_row and not is_mean:
            return "dgmla", inputs, [*kept, ("epsilon", given["epsilon"])]
    elif is_mean and by_count and "trim" not in given:
        return "ties_soup", inputs, []
    elif is_mean and not by_count:
        density = given.get("density", Setting(1.0))
        return "ties", inputs, [("density", density)]
    return "stack", inputs, params


def _rest(given: dict[str, Setting], *, is_mean: bool) -> bool:
    """Whether something is set that the named rows have fixed."""
    is_scaled = given.get("rescale", Setting(0.0)) != Setting(0.0)
    if is_mean:
        return is_scaled
    usual = dict(_USUAL_MEDIAN)
    return is_scaled or any(given[name] != usual[name] for name in usual)


def _note_draws(call: Call) -> None:
    call.builder.note(
        "Values are dropped at random: MergeLab draws other ones than sd-mecha, from "
        "the same seed, with the same probability."
    )


def _dropped_ties(call: Call) -> Value:
    base, nodes = _deltas(call)
    params = _stack(call)
    rate, epsilon = call.setting("probability", 0.9), call.number("della_eps", 0.0)
    if rate == Setting(1.0):
        return Delta(base, base)
    _note_draws(call)
    drop = Drop.RANDOM if epsilon == 0.0 else Drop.MAGNITUDE
    seed = call.number("seed", 0.0) if call.given.get("seed") is not None else 0.0
    params += [
        ("drop", Setting(float(drop))),
        ("drop_rate", rate),
        ("epsilon", Setting(epsilon) if epsilon else Setting(0.1)),
        ("seed", Setting(float(int(seed)) if seed > 0.0 else 0.0)),
    ]
    power = _rescale(call)
    factor = 1.0
    is_plain = drop is Drop.RANDOM and not call.flag("apply_median")
    if is_plain and 0.0 <= power <= 1.0:
        params.append(("rescale", Setting(power)))
    elif power:
        factor = _factor(call, power)
    node = call.builder.merge(*_named(params, (base, *nodes)))
    return Delta(base, node, factor)


def _rescale(call: Call) -> float:
    """The exponent of 1 / (1 - probability) that the result is multiplied by."""
    if "no_rescale" in call.given:
        return 0.0 if call.flag("no_rescale") else 1.0
    value = call.given.get("rescale", True)
    return float(value) if isinstance(value, bool) else call.number("rescale", 1.0)


def _factor(call: Call, power: float) -> float:
    rate = call.number("probability", 0.9)
    try:
        factor = float((1.0 - rate) ** -power) if 0.0 <= rate < 1.0 else math.inf
    except OverflowError:
        factor = math.inf
    if not math.isfinite(factor):
        raise call.refuse(f"probability={rate:g} with rescale={power:g} has no result")
    return factor


def _dropout(call: Call) -> Value:
    if call.number("overlap", 1.0) % 2.0 != 1.0:
        raise call.refuse("an overlap of drawn values has no counterpart")
    base, nodes = _deltas(call)
    if base in nodes:
        raise call.refuse("a model equal to the base counts in its mean, not in ours")
    _note_draws(call)
    seed = call.number("seed", 0.0) if call.given.get("seed") is not None else 0.0
    params: Params = [
        ("drop", Setting(float(Drop.RANDOM))),
        ("drop_rate", call.setting("probability", 0.9)),
        ("rescale", Setting(call.number("rescale", 1.0))),
        ("seed", Setting(float(int(seed)) if seed > 0.0 else 0.0)),
        ("combine", Setting(float(Combine.DISJOINT_MEAN))),
    ]
    return Delta(base, call.builder.merge("stack", (base, *nodes), params))
