"""Smooth add: the difference of two models, without its noise, on top of a third."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Weight


@merge_method(
    label="Smooth add",
    formula="A + alpha * gaussian(median(B - C))",
    source="hako-mikan, SuperMerger, 2023, "
    "https://github.com/hako-mikan/sd-webui-supermerger",
    over=Over.SLABS,
    halo=5,
)
def smooth_add(
    a: Weight,
    b: Weight,
    c: Weight,
    *,
    alpha: Annotated[
        float,
        Param(-2.0, 2.0, 0.01, help="0 gives A; 1 adds the whole smoothed difference"),
    ] = 1.0,
) -> Weight:
    """Add a smoothed difference of two models to a third.

    Formula: A + alpha * gaussian(median(B - C)). The median is that of a value and its
    direct neighbours along all axes, diagonals included (3 x 3 in a matrix, 3^4 in a
    convolution); the Gaussian has sigma 1 along every axis and ends at 4. At the ends
    of an axis the difference goes on mirrored.

    Shapes: any, equal; neighbours are those in the tensor's own shape. Works in and
    returns the inputs' dtype (float32 or float64). The filters are scipy's, on the CPU
    wherever the models are, at about 0.1 microseconds a value of a matrix and 1 of a
    convolution.

    Args:
        a: Values of the model that receives the difference.
        b: Values of the trained model.
        c: Values of the model that B was trained from.
        alpha: Factor of the smoothed difference. At 0 the result is A; at 1 it is added
            once; negative values take it away.

    Degenerate inputs: B equal to C gives A exactly; a constant difference, and one of a
    single element, is not changed by smoothing (to rounding), as in add difference;
    zero and opposite tensors are nothing special; empty stays empty.

    Source: hako-mikan, SuperMerger ("smoothAdd"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger. There the difference is
    rounded to the file's type before it is filtered, in float32.
    """
    from lib_merge.methods._ops.smooth import smoothed

    return a.add(smoothed(b - c), alpha=alpha)
