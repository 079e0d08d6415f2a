"""Comparative interpolation: B where its difference is small, or where it is large."""

from __future__ import annotations

from typing import Annotated, Any

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED, Param, choice
from lib_merge.core.runs import Place, Runs
from lib_merge.core.spaces import Weight


def _largest_gap(runs: Runs, **_: float) -> float:
    """The largest |A - B| of the tensor; 0 where it is empty."""
    largest = 0.0
    for run in runs:
        a, b = run.inputs
        largest = max(largest, float((a - b).abs_().max()))
    return largest


@merge_method(
    label="Comparative interpolation",
    formula="lerp(A, B, lerp(draw < g, g, smoothness)), g = (1 - d)^(1 / alpha - 1) or "
    "d^(1 / alpha - 1), d = |A - B| / max|A - B|",
    source="groinge, untitledmerger, 2024, "
    "https://github.com/groinge/sd-webui-untitledmerger",
    measure=_largest_gap,
)
def comparative_interpolation(
    a: Weight,
    b: Weight,
    *,
    alpha: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="0 gives A, 0.5 takes B in proportion to likeness (or difference), 1 "
            "gives B",
        ),
    ] = 0.5,
    favour: Annotated[
        float,
        choice(
            "likeness",
            "difference",
            help="B where it is near A, or where it is far from A",
        ),
    ] = 0.0,
    smoothness: Annotated[
        float,
        Param(
            0.0,
            1.0,
            0.01,
            help="0 draws each value from A or B, 1 blends them without drawing",
        ),
    ] = 0.25,
    seed: Annotated[float, SEED] = 0,
    measured: Any,
    place: Place,
) -> Weight:
    """Take each value from A or B by how far apart they are in their tensor.

    Formula: d = |A - B| / max|A - B| over the tensor; g = (1 - d)^(1 / alpha - 1) where
    likeness is favoured, d^(1 / alpha - 1) where difference is; 0^0 is 1. The draw is 1
    with probability g, else 0, and the result is
    lerp(A, B, lerp(draw, g, smoothness)).

    Shapes: any, equal. Works in and returns the inputs' dtype (float32 or float64).

    Args:
        a: Values of model A.
        b: Values of model B.
        alpha: How readily B is taken. At 0 the result is A, at 1 it is B; at 0.5 g is
            the likeness or the difference itself.
        favour: Where B is taken: where it is like A, or where it differs.
        smoothness: At 0 each value is A's or B's, drawn; at 1 values are blended by g
            and nothing is drawn; between, both.
        seed: Which values are drawn.
        measured: The largest difference of the tensor.
        place: Where the run lies; draws depend on it.

    Degenerate inputs: equal tensors come back unchanged (0/0 is never formed); where
    all differences are equal (opposite, constant and one-element tensors) the result is
    A for likeness and B for difference, unless alpha is 0 or 1; zero is nothing
    special; empty stays empty.

    Source: groinge, untitledmerger ("Comparative Interp"), 2024,
    https://github.com/groinge/sd-webui-untitledmerger. Same formula; there alpha 0
    means 0.001, text embeddings are left out by name, and one seed draws the same mask
    for every tensor of a shape, which our draws by key do not.
    """
    import torch

    from lib_merge.methods._ops.draws import Draws, masked
    from lib_merge.methods._ops.powers import power

    if alpha == 0.0 or measured < torch.finfo(a.dtype).tiny:
        return a.clone()
    gap = (a - b).abs_()
    near = gap if favour else gap.neg_().add_(measured)
    share = power(near.div_(measured).clamp_(0.0, 1.0), 1.0 / alpha - 1.0)
    if smoothness < 1.0:
        draws = Draws(place, a.numel(), seed=seed, device=a.device)
        drawn = masked(torch.ones_like(share), draws.keep(0, 1.0 - share))
        share = drawn.lerp_(share, smoothness)
    return a.lerp(b, share)
