"""Smoothing over the axes of a tensor: a median, then a bell curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MEDIAN_SIZE = 3
SIGMA = 1.0
HALO = 5
"""How far a value reaches: 1 in the median, then 4 sigma of the bell curve."""


def smoothed(values: Tensor) -> Tensor:
    """The median of every value and its neighbours, then a Gaussian filter over that.

    Axes of length 1 have no neighbours and are left out, which changes nothing. At the
    ends of an axis the tensor goes on mirrored (d c b a | a b c d | d c b a).

    scipy has the filters for CPU memory only, so values of a GPU make the way there
    and back. It finds medians by ranks and sums in float64, line by line along each
    axis, so that a value has the same bits however the tensor is cut up.

    Args:
        values: Any shape, float32 or float64.

    Returns:
        A new tensor of that shape, dtype and device.
    """
    import torch
    from scipy import ndimage

    short = values.squeeze()
    if short.dim() == 0 or not values.numel():
        return values.clone()
    array = short.detach().cpu().numpy()
    median = ndimage.median_filter(array, size=MEDIAN_SIZE, mode="reflect")
    bell = ndimage.gaussian_filter(median, sigma=SIGMA, mode="reflect", truncate=4.0)
    return torch.from_numpy(bell).to(values.device).reshape(values.shape)
