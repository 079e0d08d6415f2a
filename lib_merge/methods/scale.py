"""Scale: one model times a number."""

from __future__ import annotations

from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import Param
from lib_merge.core.spaces import Weight


@merge_method(
    label="Scale",
    formula="alpha * A",
    source='hako-mikan, SuperMerger (mode "self"), 2023, '
    "https://github.com/hako-mikan/sd-webui-supermerger",
)
def scale(
    a: Weight,
    *,
    alpha: Annotated[
        float, Param(-1.0, 2.0, 0.01, help="1 gives A unchanged, 0 gives zeros")
    ] = 1.0,
) -> Weight:
    """Multiply a model's values by a number.

    Formula: alpha * A.

    Shapes: any. Works in and returns the input's dtype (float32 or float64).

    Args:
        a: Values of the model.
        alpha: The factor. At 1 the result is A, at 0 it is zero everywhere, below 0
            signs change. Most useful for some blocks only, near 1.

    Degenerate inputs: zero stays zero; equal, opposite, constant and one-element
    tensors are nothing special; empty stays empty.

    Source: hako-mikan, SuperMerger (mode "self"), 2023,
    https://github.com/hako-mikan/sd-webui-supermerger; "Self" in sd-webui-model-mixer.
    SuperMerger leaves keys with "to_out", "proj_out" or "norm" in their names alone,
    and all keys where alpha is 0; here alpha means the same for every key it is given
    for. sd-mecha's `scale` of a task vector is `amplify_difference` here.
    """
    return a * alpha
