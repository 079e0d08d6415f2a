"""The parameters of the stack, which its rows share; each has its own default."""

from __future__ import annotations

from lib_merge.core.params import Param, choice

DROP = choice(
    "none",
    "random",
    "magnitude",
    help="what is dropped by chance: nothing, every value alike (DARE), or by the rank "
    "of its magnitude (DELLA)",
)

DROP_RATE = Param(
    0.0,
    1.0,
    0.01,
    help="probability to drop a value: 0 keeps all, 1 drops all and gives the base",
)

EPSILON = Param(
    -1.0,
    1.0,
    0.01,
    help="how much likelier the largest value is kept than the smallest: above 0 large "
    "values are kept more, below 0 they are dropped more, 0 treats all alike",
)

RESCALE = Param(
    0.0,
    1.0,
    0.01,
    help="kept values are divided by their keep probability to this power: 1 makes up "
    "for what is dropped, 0 leaves them as they are",
)

TRIM = choice(
    "none",
    "top",
    "breadcrumbs",
    help="what is dropped for its magnitude: nothing, all but the largest (TIES), or "
    "the outliers and then the smallest",
)

DENSITY = Param(
    0.0,
    1.0,
    0.01,
    help="share of each delta that trimming keeps, the largest first: 1 keeps all, 0 "
    "one value",
)

OUTLIERS = Param(
    0.0,
    0.5,
    0.001,
    help="share of each delta that is dropped because it is the largest: 0 drops none, "
    "0.5 the larger half",
)

ELECT = choice(
    "none",
    "count",
    "magnitude",
    help="who decides on each value's sign: nobody, one model one vote, or votes by "
    "magnitude",
)

COMBINE = choice(
    "sum",
    "mean",
    "disjoint_mean",
    "geometric_median",
    "model_stock",
    "karcher",
    help="how the deltas become one: their sum, the mean over all models, the mean "
    "over those that hold a value, the geometric median, Model Stock, or the Karcher "
    "mean",
)

WEIGHT = Param(
    0.0,
    100.0,
    0.01,
    per_model=True,
    help="share of each model in the mean: 0 leaves its values out, though it still "
    "votes on signs; only the ratios matter",
)

LAM = Param(
    0.0,
    2.0,
    0.01,
    help="factor of the merged delta: 0 gives the base, 1 adds all of it, 2 twice",
)
